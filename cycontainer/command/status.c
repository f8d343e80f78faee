/* What the kernel says of a container: the second half of state.py's counterpart. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "command.h"

/* The beginning of a small file, with a NUL behind it; its length, or -1. */
static ssize_t read_beginning(const char *path, char *text, size_t room) {
    ssize_t got;
    int error, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    text[0] = 0;
    if (fd < 0)
        return -1;
    got = read(fd, text, room - 1);
    error = errno;
    close(fd);
    text[got > 0 ? got : 0] = 0;
    errno = error;
    return got;
}

/* A process's name, state and start time. proc(5), /proc/PID/stat. */
struct process process_of(long pid) {
    struct process process = {0};
    char path[64], text[1024], *name, *rest;
    snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
    if (read_beginning(path, text, sizeof(text)) < 0) {
        process.error = errno == ENOENT || errno == ESRCH ? 0 : errno;
        return process;
    }
    process.error = EPROTO; /* until all is understood */
    name = strchr(text, '(');
    rest = strrchr(text, ')'); /* a name may have any letter */
    if (!name || !rest || rest[1] != ' ' || (size_t)(rest - name) > sizeof(process.name))
        return process;
    memcpy(process.name, name + 1, (size_t)(rest - name - 1));
    process.letter = rest[2];
    for (int field = 0; field < 20; field++) { /* the 20th after the name is when it started */
        rest = strchr(rest + 1, ' ');
        if (!rest)
            return process;
    }
    process.error = 0;
    process.start_time = strtoull(rest + 1, NULL, 10);
    process.there = true;
    return process;
}

static bool is_same(const struct process *process, const struct state *state) {
    if (process->error)
        hand_on();
    return process->there && !strchr(DEAD_STATES, process->letter) &&
           process->start_time == (unsigned long long)state->start_time;
}

bool is_alive(const struct state *state) {
    struct process process = state->pid > 0 ? process_of(state->pid) : (struct process){0};
    return is_same(&process, state);
}

/* Whether a cgroup's file has one of these words: {file, words, NULL}. */
static bool says(const struct cgroup *cgroup, const char *const *sign) {
    char path[2 * PATH_ROOM], word[64];
    if ((size_t)snprintf(path, sizeof(path), "%s%s/%s", cgroup->mount, cgroup->path, *sign) >= sizeof(path))
        hand_on();
    if (read_beginning(path, word, sizeof(word)) < 0 && errno != ENOENT && errno != ENODEV)
        hand_on(); /* ENODEV: removed while it was open */
    word[strcspn(word, "\n")] = 0;
    while (*++sign)
        if (strcmp(word, *sign) == 0)
            return true;
    return false;
}

bool is_frozen(const struct state *state) {
    for (int index = 0; index < state->cgroups; index++)
        if (has_controller(&state->cgroup[index], "freezer"))
            return says(&state->cgroup[index], V1_FROZEN);
    for (int index = 0; index < state->cgroups; index++)
        if (says(&state->cgroup[index], V2_FROZEN))
            return true;
    return false;
}

/* Whether something in it was killed for exceeding the memory limit. */
bool exceeded_memory(const struct state *state) {
    char path[2 * PATH_ROOM], text[512];
    for (int index = 0; index < state->cgroups; index++)
        for (const char *const *file = OOM_FILES; *file; file++) {
            const struct cgroup *cgroup = &state->cgroup[index];
            const char *line;
            snprintf(path, sizeof(path), "%s%s/%s", cgroup->mount, cgroup->path, *file);
            line = read_beginning(path, text, sizeof(text)) > 0 ? strstr(text, "oom_kill ") : NULL;
            if (line && atol(line + sizeof("oom_kill")) > 0)
                return true;
        }
    return false;
}

/* Whether the init waits for start: then, and only then, the FIFO has a reader. */
static bool is_waiting(int directory) {
    int fd = openat(directory, GO_FILE, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno != ENXIO && errno != ENOENT && errno != EISDIR && errno != ELOOP)
        hand_on();
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* Whether someone is making it. */
static bool is_locked(int directory) {
    int fd = openat(directory, ".", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    bool locked = false;
    if (fd < 0)
        hand_on();
    if (flock(fd, LOCK_SH | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK)
            hand_on();
        locked = true;
    }
    close(fd);
    return locked;
}

enum status status_of(int directory, const struct state *state) {
    struct process process;
    if (state->pid == 0)
        return is_locked(directory) ? CREATING : STOPPED;
    process = process_of(state->pid);
    if (!is_same(&process, state))
        return STOPPED;
    if (is_waiting(directory) && strcmp(process.name, INIT_NAME) == 0) /* execve closes the FIFO a moment late */
        return CREATED;
    return is_frozen(state) ? PAUSED : RUNNING;
}
