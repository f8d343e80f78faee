/* Signals to a container's processes, by pidfd: the verb `kill`, and what `delete` sends; deletion.py's counterpart. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "command.h"

/* --- the first process */

/* A pidfd of it, verified to be it; -1 when it has ended. */
int open_first(const struct state *state) {
    int fd = state->pid > 0 ? (int)syscall(SYS_pidfd_open, (pid_t)state->pid, 0) : -1;
    if (state->pid > 0 && fd < 0 && errno != ESRCH)
        hand_on();
    if (fd >= 0 && is_alive(state))
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* 0, or a negative errno. */
int send_signal(int pidfd, int number) {
    return syscall(SYS_pidfd_send_signal, pidfd, number, NULL, 0) == 0 ? 0 : -errno;
}

bool has_ended(int pidfd, int timeout_ms) {
    struct pollfd entry = {.fd = pidfd, .events = POLLIN};
    int ready;
    do
        ready = poll(&entry, 1, timeout_ms);
    while (ready < 0 && errno == EINTR);
    return ready == 1;
}

/* Whether it is pid 1 where it lives: with it, the kernel ends all others there. proc(5), NSpid. */
static bool is_first_of_namespace(const struct state *state) {
    char path[64], line[512];
    bool first = true;
    FILE *file;
    snprintf(path, sizeof(path), "/proc/%ld/status", state->pid);
    file = fopen(path, "re");
    if (!file && errno != ENOENT && errno != ESRCH)
        hand_on();
    while (file && fgets(line, sizeof(line), file))
        if (strncmp(line, "NSpid:", 6) == 0) {
            line[strcspn(line, "\n")] = 0;
            first = strcmp(strrchr(line, '\t') ? strrchr(line, '\t') : line, "\t1") == 0;
        }
    if (file)
        fclose(file);
    return first;
}

/* --- kill */

/* The number of a signal given as KILL, SIGKILL or 9, in any case; what else there is, is handed on. */
static int signal_number(const char *text) {
    const char *name = strncasecmp(text, "SIG", 3) == 0 ? text + 3 : text;
    size_t length = strlen(text);
    if (strcmp(text, "0") == 0)
        return 0;
    for (size_t index = 0; index < sizeof(SIGNALS) / sizeof(SIGNALS[0]); index++)
        if (strcasecmp(name, SIGNALS[index].name) == 0)
            return SIGNALS[index].number;
    if (length == 0 || length > 2 || strspn(text, "0123456789") != length || atoi(text) < 1 ||
        atoi(text) > LAST_REAL_TIME)
        hand_on();
    return atoi(text);
}

static int let_die(int number) {
    int error = number == SIGKILL ? thaw_to_die() : 0;
    return error ? fail_with_errno(NULL, -error) : 0;
}

static int signal_first(const struct call *call, const struct state *state, int number) {
    int error = 0, first = open_first(state);
    bool everyone;
    if (first < 0)
        return fail(NOT_RUNNING, call->operand[0]);
    everyone = number == SIGKILL && state->cgroups > 0 && !is_first_of_namespace(state);
    if (everyone) /* no end of a pid namespace takes the others along */
        error = signal_cgroup(state, SIGKILL);
    error = error ? error : send_signal(first, number);
    if (error == -ESRCH && everyone)
        error = 0;
    if (error == -ESRCH)
        return fail(NOT_RUNNING, call->operand[0]);
    return error ? fail_with_errno(NULL, -error) : let_die(number);
}

/* Without a cgroup only the first is known, as with runc. */
static int signal_everyone(const struct state *state, int number) {
    int error, first = state->cgroups > 0 ? -1 : open_first(state);
    if (first >= 0)
        error = send_signal(first, number);
    else
        error = signal_cgroup(state, number);
    return error && error != -ESRCH ? fail_with_errno(NULL, -error) : let_die(number);
}

int answer_kill(const struct call *call) {
    static struct state state;
    int number = signal_number(call->operands > 1 ? call->operand[1] : DEFAULT_SIGNAL);
    int directory = open_container(call->root, call->operand[0]);
    if (directory < 0 || !load_state(directory, call->operand[0], &state))
        return fail(NOT_FOUND, call->operand[0]);
    if (needs_interpreter(&state, call->verb))
        hand_on();
    if (number == SIGKILL)
        find_holding(&state);
    return call->value[OPTION_ALL] ? signal_everyone(&state, number) : signal_first(call, &state, number);
}
