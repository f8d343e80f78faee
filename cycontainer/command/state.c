/* Reading what is kept of a container: the counterpart of state_text.py and state.py. The file is untrusted: whatever
   is not as the writer writes it is the interpreter's to judge. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"

bool is_id(const char *name) {
    size_t length = strlen(name);
    return length > 0 && length <= ID_LETTERS && strspn(name, ID_ALPHABET) == length && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

/* --- the text */

/* What a letter behind a backslash stands for; NULL when it is none of the writer's. */
static const char *plain_of(char letter) {
    for (size_t index = 0; index < sizeof(ESCAPES) / sizeof(ESCAPES[0]); index++)
        if (ESCAPES[index].letter == letter)
            return ESCAPES[index].plain;
    return NULL;
}

/* Undoes a word's escapes where it stands; false when one is unknown. */
static bool unescape(char *word) {
    char *to = word;
    for (; *word; word++) {
        const char *plain = *word == '\\' ? plain_of(*++word) : word;
        if (!plain)
            return false;
        if (*plain)
            *to++ = *plain;
    }
    *to = 0;
    return true;
}

/* The words of a line, which ends with NUL; how many, or -1. */
static int split(char *line, char **words) {
    int count = 0;
    while (line && count < MOST_WORDS) {
        char *blank = strchr(line, ' ');
        if (blank)
            *blank++ = 0;
        words[count++] = line;
        line = blank;
    }
    if (line)
        return -1;
    for (int index = 0; index < count; index++)
        if (!unescape(words[index]))
            return -1;
    return count;
}

static bool read_number(const char *word, long *number) {
    size_t length = strlen(word);
    if (length == 0 || length > 18 || strspn(word, "0123456789") != length)
        return false;
    *number = 0;
    for (; *word; word++)
        *number = 10 * *number + (*word - '0');
    return true;
}

static bool take_cgroup(char **words, struct state *state) {
    struct cgroup *cgroup = &state->cgroup[state->cgroups];
    char *name = words[2];
    int count = 0;
    if (state->cgroups == MOST_CGROUPS || words[1][0] != '/')
        return false;
    cgroup->mount = words[1], cgroup->path = words[3];
    while (name && *name) {
        char *comma = strchr(name, ',');
        if (comma)
            *comma++ = 0;
        if (count == MOST_CONTROLLERS)
            return false;
        cgroup->controller[count++] = name;
        name = comma;
    }
    cgroup->controller[count] = NULL;
    state->cgroups++;
    return true;
}

static bool take_annotation(char **words, struct state *state) {
    if (state->annotations == MOST_ANNOTATIONS)
        return false;
    for (int index = 0; index < state->annotations; index++)
        if (strcmp(state->annotation[index][0], words[1]) == 0)
            return false; /* which of the two counts, Python's dict says */
    state->annotation[state->annotations][0] = words[1];
    state->annotation[state->annotations++][1] = words[2];
    return true;
}

static bool take_resctrl(char **words, struct state *state) {
    (void)words; /* the group is the interpreter's */
    state->resctrl = true;
    return true;
}

static bool take_supervised(char **words, struct state *state) {
    (void)words, (void)state; /* no verb of ours asks */
    return true;
}

static bool take_python(char **words, struct state *state) {
    if (state->pythons == MOST_VERBS)
        return false;
    state->python[state->pythons++] = words[1];
    return true;
}

/* A line that there may be several of; 0 when it is no such line. */
static int take_repeated(char **words, int values, struct state *state) {
#define TAKE(key, count)                                                                                               \
    if (strcmp(words[0], #key) == 0)                                                                                   \
        return values == count && take_##key(words, state) ? 1 : -1;
    STATE_REPEATED(TAKE)
    return 0;
}

/* A line that there is one of. */
static bool take_single(char **words, int values, struct state *state) {
#define PLACE(key, needed) {#key, &state->key},
    struct {
        const char *key, **text;
    } texts[] = {STATE_TEXTS(PLACE){NULL, NULL}};
    struct {
        const char *key;
        long *number;
    } numbers[] = {STATE_NUMBERS(PLACE){NULL, NULL}};
    if (values != 1)
        return false;
    for (int index = 0; texts[index].key; index++)
        if (strcmp(words[0], texts[index].key) == 0) {
            bool first = !*texts[index].text;
            *texts[index].text = words[1];
            return first;
        }
    for (int index = 0; numbers[index].key; index++)
        if (strcmp(words[0], numbers[index].key) == 0)
            return *numbers[index].number == -1 && read_number(words[1], numbers[index].number);
    return false;
}

static bool is_whole(const struct state *state) {
#define TEXT_IS_THERE(key, needed)   (!(needed) || state->key) &&
#define NUMBER_IS_THERE(key, needed) (!(needed) || state->key >= 0) &&
    return STATE_TEXTS(TEXT_IS_THERE) STATE_NUMBERS(NUMBER_IS_THERE) state->owner <= UINT_MAX &&
           state->pid <= INT_MAX && state->init_pid <= INT_MAX;
}

static bool is_line(char **words, int count, const char *first, const char *second) {
    return count == 2 && strcmp(words[0], first) == 0 && strcmp(words[1], second) == 0;
}

/* Reads a state's text, which is changed and has room for a NUL behind it. 0, or -1 for whatever is not usual. */
int parse_state(char *text, size_t length, struct state *state) {
    char *words[MOST_WORDS], *line = text, *end;
    int number = 0, count;
    memset(state, 0, sizeof(*state));
#define MISSING(key, needed) state->key = -1;
    STATE_NUMBERS(MISSING)
    text[length] = 0;
    if (strlen(text) != length)
        return -1;
    for (; (end = strchr(line, '\n')); line = end + 1, number++) {
        *end = 0;
        count = split(line, words);
        if (count < 1)
            return -1;
        if (number == 0) {
            if (!is_line(words, count, STATE_MAGIC, STATE_VERSION))
                return -1;
        } else if (is_line(words, count, STATE_END[0], STATE_END[1])) {
            return end[1] == 0 && is_whole(state) ? 0 : -1;
        } else {
            int taken = take_repeated(words, count - 1, state);
            if (taken < 0 || (taken == 0 && !take_single(words, count - 1, state)))
                return -1;
        }
    }
    return -1;
}

/* --- the directory */

/* A container's directory; -1 when there is none. */
int open_container(const char *root, const char *id) {
    char path[PATH_ROOM];
    int fd;
    stpcpy(stpcpy(stpcpy(path, root), "/"), id);
    fd = open(path, O_DIRECTORY | O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
        hand_on();
    return fd;
}

/* Its state, from one text that the next call overwrites; false when it was never written. */
bool load_state(int directory, const char *id, struct state *state) {
    static char text[STATE_BYTES + 2];
    struct stat status;
    size_t length = 0;
    int fd = openat(directory, STATE_FILE, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return false;
    if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
        hand_on();
    while (length <= STATE_BYTES) {
        ssize_t got = read(fd, text + length, STATE_BYTES + 1 - length);
        if (got < 0)
            hand_on();
        if (got == 0)
            break;
        length += (size_t)got;
    }
    close(fd);
    if (length > STATE_BYTES || parse_state(text, length, state) < 0 || strcmp(state->id, id) != 0)
        hand_on();
    return true;
}

bool has_controller(const struct cgroup *cgroup, const char *controller) {
    for (const char *const *name = cgroup->controller; *name; name++)
        if (strcmp(*name, controller) == 0)
            return true;
    return false;
}

bool needs_interpreter(const struct state *state, const char *verb) {
    for (int index = 0; index < state->pythons; index++)
        if (strcmp(state->python[index], verb) == 0)
            return true;
    return false;
}
