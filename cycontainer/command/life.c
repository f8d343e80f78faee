/* The verbs `start`, `pause`, `resume` and `delete`: what they change, under the container's lock.
   The counterparts of starting.py, deletion.py and Container. */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command.h"

/* linux/pidfd.h, of which older systems have less */
#define INFO_EXIT      (1ULL << 3)
#define GET_INFO(size) _IOC(_IOC_READ | _IOC_WRITE, 0xFF, 11, size)

static struct state state;

/* --- the lock */

/* The container's directory, locked; -1 when there is none, or no more. The interpreter waits for who holds it. */
static int lock_container(const struct call *call) {
    int fd = open_container(call->root, call->operand[0]);
    struct stat status;
    if (fd < 0)
        return -1;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        hand_on();
    if (fstat(fd, &status) < 0)
        hand_on();
    if (status.st_nlink > 0)
        return fd;
    close(fd);
    return -1;
}

/* The same, and its state read; what the interpreter has to do is handed on. */
static int lock_and_load(const struct call *call) {
    int directory = lock_container(call);
    if (directory < 0 || !load_state(directory, call->operand[0], &state))
        return -1;
    if (needs_interpreter(&state, call->verb))
        hand_on();
    return directory;
}

/* --- pause and resume */

int answer_pause(const struct call *call) {
    int directory = lock_and_load(call);
    enum status status;
    if (directory < 0)
        return fail(NOT_FOUND, call->operand[0]);
    status = status_of(directory, &state);
    if (status != RUNNING && status != CREATED)
        return fail(NOT_RUNNING, call->operand[0]);
    freeze(&state);
    return 0;
}

int answer_resume(const struct call *call) {
    int directory = lock_and_load(call);
    enum status status;
    if (directory < 0)
        return fail(NOT_FOUND, call->operand[0]);
    status = status_of(directory, &state);
    if ((status != PAUSED && status != CREATED) || !is_frozen(&state))
        return fail(NOT_PAUSED, call->operand[0]);
    thaw(&state);
    return 0;
}

/* --- start */

/* Whether someone waits to hear that the program is ready: that takes a listener. */
static bool has_service_manager(int directory) {
    const char *manager = getenv("NOTIFY_SOCKET");
    struct stat status;
    return manager && *manager && fstatat(directory, NOTIFY_DIRECTORY, &status, 0) == 0;
}

/* Reads what the init says to the end: its execve, or a message of what failed. Returns whether there was one. */
static bool read_outcome(int outcome, struct message *failed) {
    struct pollfd entry = {.fd = outcome, .events = POLLIN};
    struct message message;
    bool some = false;
    for (;;) {
        int ready = poll(&entry, 1, START_PATIENCE_MS);
        ssize_t got = ready > 0 ? read(outcome, &message, sizeof(message)) : -1;
        if (ready == 0)
            exit(fail("%s", INIT_STUCK));
        if (got == 0)
            return some;
        if (got < 0 && errno != EINTR && errno != EAGAIN)
            exit(fail_with_errno(NULL, errno));
        if (got == (ssize_t)sizeof(message))
            *failed = message, some = true;
    }
}

/* Whether a process is dead, not yet waited for, and had not executed a program when it died: its name tells. */
static bool died_as_init(void) {
    struct process process = process_of(state.pid);
    char path[64], target[8];
    snprintf(path, sizeof(path), "/proc/%ld/stat", state.pid);
    if (process.error)
        exit(fail_with_errno(path, process.error));
    if (!process.there || strcmp(process.name, INIT_NAME) != 0)
        return false;
    if (strchr(DEAD_STATES, process.letter))
        return true;
    snprintf(path, sizeof(path), "/proc/%ld/exe", state.pid);
    /* it is ending: its memory goes before its descriptors, whose end brought us here */
    return readlink(path, target, sizeof(target)) < 0 && (errno == ENOENT || errno == ESRCH);
}

/* Whether a process was killed and has been waited for; before Linux 6.15 nobody knows. See starting.py. */
static bool was_killed(int first) {
    struct {
        unsigned long long mask, cgroup;
        unsigned int ids[11]; /* pid, tgid, ppid, and the users and groups that it had */
        int exit_code;
    } info = {.mask = INFO_EXIT};
    _Static_assert(sizeof(info) == 64, "the first version of struct pidfd_info");
    return ioctl(first, GET_INFO(sizeof(info)), &info) == 0 && info.mask & INFO_EXIT && WIFSIGNALED(info.exit_code) &&
           WTERMSIG(info.exit_code) == SIGKILL;
}

static int tell_failure(const struct message *failed) {
    char text[PATH_ROOM], reason[256];
    snprintf(reason, sizeof(reason), "%s", strerror(failed->error));
    for (char *letter = reason; *letter; letter++)
        *letter = (char)tolower((unsigned char)*letter);
    snprintf(text, sizeof(text), PROGRAM_FAILED, state.program, reason);
    return fail("%s", text);
}

/* Lets the waiting init execute its program. From the byte on, nothing is handed on. */
static int release(const struct call *call, int directory) {
    struct message failed;
    int waited = 0, go, first = open_first(&state);
    int outcome = openat(directory, OUTCOME_FILE, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (first < 0)
        return fail(NOT_RUNNING, call->operand[0]);
    go = outcome < 0 ? -1 : openat(directory, GO_FILE, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (go < 0) {
        if (errno != ENXIO && errno != ENOENT)
            hand_on();
        return fail(NOT_RUNNING, call->operand[0]);
    }
    signal(SIGPIPE, SIG_IGN);
    while (write(go, "", 1) < 0)
        if (errno != EINTR)
            return fail_with_errno(NULL, errno);
    if (read_outcome(outcome, &failed))
        return tell_failure(&failed);
    if (ioctl(go, FIONREAD, &waited) < 0) /* whether the byte is still there: it waited to its end */
        return fail_with_errno(NULL, errno);
    if (!waited && !died_as_init() && !was_killed(first))
        return 0;
    return fail("%s", exceeded_memory(&state) ? INIT_OOM_KILLED : INIT_DIED);
}

int answer_start(const struct call *call) {
    int directory = lock_and_load(call);
    enum status status;
    if (directory < 0)
        return fail(NOT_FOUND, call->operand[0]);
    status = status_of(directory, &state);
    if (status != CREATED) {
        char text[PATH_ROOM];
        snprintf(text, sizeof(text), NOT_CREATED, STATUSES[status], call->operand[0]);
        return fail("%s", text);
    }
    if (is_frozen(&state))
        return fail(PAUSED_START, call->operand[0]);
    if (has_service_manager(directory) || !state.program || !*state.program || !is_plain(state.program) ||
        strlen(state.program) > 3000)
        hand_on();
    return release(call, directory);
}

/* --- delete */

static void kill_everything(void) {
    int error, first = open_first(&state);
    if (first >= 0) {
        error = send_signal(first, SIGKILL);
        /* an AppArmor profile may take no signals; a v2 cgroup kills all the same */
        if (error && error != -ESRCH && !(error == -EPERM && state.cgroups))
            hand_on();
    }
    if (state.cgroups)
        kill_cgroup(&state);
    if (first >= 0 && !has_ended(first, KILL_PATIENCE_US / 1000))
        hand_on();
}

/* Removes all in a directory, and below "notify" in it. */
static void remove_entries(int fd, bool below) {
    struct dirent *entry;
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = copy >= 0 ? fdopendir(copy) : NULL;
    if (!directory)
        hand_on();
    while ((errno = 0, entry = readdir(directory))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (!below && strcmp(entry->d_name, NOTIFY_DIRECTORY) == 0) {
            int inner = openat(fd, NOTIFY_DIRECTORY, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            if (inner < 0)
                hand_on();
            remove_entries(inner, true);
            close(inner);
            if (unlinkat(fd, NOTIFY_DIRECTORY, AT_REMOVEDIR) < 0)
                hand_on();
        } else if (unlinkat(fd, entry->d_name, 0) < 0) {
            hand_on();
        }
    }
    if (errno)
        hand_on();
    closedir(directory);
}

static void remove_directory(const struct call *call, int directory) {
    char path[PATH_ROOM];
    if (unlinkat(directory, STATE_FILE, 0) < 0 && errno != ENOENT) /* first what readers find it by */
        hand_on();
    remove_entries(directory, false);
    stpcpy(stpcpy(stpcpy(path, call->root), "/"), call->operand[0]);
    if (rmdir(path) < 0)
        hand_on();
}

int answer_delete(const struct call *call) {
    bool force = call->value[OPTION_FORCE] != NULL;
    int directory = lock_container(call);
    if (directory < 0)
        return force ? 0 : fail(NOT_FOUND, call->operand[0]);
    if (load_state(directory, call->operand[0], &state)) {
        enum status status = state.pid ? status_of(directory, &state) : STOPPED;
        if ((status == RUNNING || status == PAUSED) && !force) {
            char text[PATH_ROOM];
            snprintf(text, sizeof(text), STILL_RUNS, STATUSES[status], call->operand[0]);
            return fail("%s", text);
        }
        /* what only was meant to be made; groups and units of others' making; hooks */
        if (state.pid == 0 || state.resctrl || state.unit || needs_interpreter(&state, call->verb))
            hand_on();
        kill_everything();
        remove_cgroup(&state);
    } else if (faccessat(directory, CONFIG_FILE, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        hand_on(); /* the state is lost: the configuration tells where something may live */
    }
    remove_directory(call, directory);
    return 0;
}
