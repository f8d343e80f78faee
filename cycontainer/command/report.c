/* What the command prints: its answer, its errors, and the log that engines read: cli/report.py's counterpart. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "command.h"

static const char *log_path, *log_form = LOG_TEXT;

void report_to(const char *log, const char *form) {
    log_path = log && *log ? log : NULL;
    log_form = form ? form : LOG_TEXT;
}

/* --- texts */

static void add_bytes(struct text *text, const char *more, size_t length) {
    if (text->length + length + 1 > text->room) {
        text->room = 2 * text->room + length + 512;
        text->start = realloc(text->start, text->room);
        if (!text->start)
            _exit(1); /* nothing can be said without memory */
    }
    memcpy(text->start + text->length, more, length);
    text->length += length;
    text->start[text->length] = 0;
}

void add(struct text *text, const char *more) {
    add_bytes(text, more, strlen(more));
}

void add_number(struct text *text, long number) {
    char digits[24];
    snprintf(digits, sizeof(digits), "%ld", number);
    add(text, digits);
}

/* ASCII that prints, and nothing else: what is shown as it is. */
bool is_plain(const char *text) {
    for (; *text; text++)
        if (*text < ' ' || *text > '~')
            return false;
    return true;
}

/* In double quotes, as json_text.quoted has it. Other than ASCII is handed on. */
void add_quoted(struct text *text, const char *plain) {
    static const char ESCAPED[] = "\"\\\n\r\t\f\b", LETTERS[] = "\"\\nrtfb";
    char escape[8];
    add(text, "\"");
    for (; *plain; plain++) {
        const char *found = strchr(ESCAPED, *plain);
        if ((unsigned char)*plain >= 0x80)
            hand_on();
        if (found)
            snprintf(escape, sizeof(escape), "\\%c", LETTERS[found - ESCAPED]);
        else if (*plain < ' ' || *plain == 0x7f)
            snprintf(escape, sizeof(escape), "\\u%04x", (unsigned)*plain);
        else
            snprintf(escape, sizeof(escape), "%c", *plain);
        add(text, escape);
    }
    add(text, "\"");
}

/* --- where they go */

/* That nobody reads, or that a file may not grow, is an error of write(2), as in the interpreter. */
static void ignore_signals_of_writing(void) {
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

static int write_all_of(int fd, const char *output, size_t length) {
    while (length > 0) {
        ssize_t done = write(fd, output, length);
        if (done < 0 && errno != EINTR)
            return -1;
        if (done > 0)
            output += done, length -= (size_t)done;
    }
    return 0;
}

/* The answer; returns the exit status. */
int print(const char *output, size_t length) {
    ignore_signals_of_writing();
    return write_all_of(1, output, length) == 0 ? 0 : fail_with_errno(NULL, errno);
}

/* A line of the log. */
static char *line_of(const char *message, const char *form) {
    struct text quoted = {0};
    time_t now = time(NULL);
    struct tm parts;
    char stamp[32], *line = NULL;
    bool json = strcmp(form, LOG_JSON) == 0;
    const char *shape = json ? JSON_LINE : TEXT_LINE;
    bool time_first = json ? JSON_LINE_TIME_FIRST : TEXT_LINE_TIME_FIRST;
    add_quoted(&quoted, message);
    strftime(stamp, sizeof(stamp), LOG_TIME, gmtime_r(&now, &parts));
    if (asprintf(&line, shape, time_first ? stamp : quoted.start, time_first ? quoted.start : stamp) < 0)
        _exit(1);
    return line;
}

static void say(const char *line) {
    struct text output = {0};
    add(&output, line);
    add(&output, "\n");
    write_all_of(2, output.start, output.length);
}

static void write_log(const char *message) {
    struct text text = {0}, path = {0};
    char *problem = NULL;
    int error, fd;
    add(&text, line_of(message, log_form));
    add(&text, "\n");
    fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0644);
    if (fd >= 0 && write(fd, text.start, text.length) >= 0) /* in one call: lines of several commands stay whole */
        return;
    error = errno;
    add_quoted(&path, log_path);
    path.start[path.length - 1] = 0;
    if (asprintf(&problem, PREFIX NO_LOG, path.start + 1, strerror(error)) < 0)
        _exit(1);
    say(problem);
}

/* The last word: to stderr as well as to the log. `format` has a %s for `what`. Returns the exit status. */
int fail(const char *format, const char *what) {
    struct text text = {0};
    char *message = NULL;
    if (asprintf(&message, format, what) < 0)
        _exit(1);
    ignore_signals_of_writing();
    if (log_path)
        write_log(message);
    if (!log_path && strcmp(log_form, LOG_JSON) == 0) {
        say(line_of(message, log_form));
        return 1;
    }
    add(&text, PREFIX);
    add(&text, message);
    say(text.start);
    return 1;
}

/* An errno as C's programs print it, behind the path that it is about, if there is one: texts._system. */
int fail_with_errno(const char *path, int code) {
    char reason[256], text[PATH_ROOM];
    snprintf(reason, sizeof(reason), "%s", strerror(code));
    if (reason[0] >= 'A' && reason[0] <= 'Z')
        reason[0] = (char)(reason[0] - 'A' + 'a');
    snprintf(text, sizeof(text), "%s%s%s", path ? path : "", path ? ": " : "", reason);
    return fail("%s", text);
}
