// What the kernel itself charges for a container: the system calls of a runtime, and nothing else of one.
//
// It spawns containers of one program and waits for each, then prints one line of JSON: the percentiles of a spawn in
// milliseconds, and how many were done in a second. A yardstick only: it has no state, no error recovery and no path
// safety. x86-64 Linux, cgroup v1, as root.
//
// Build: cc -O2 -static -pthread -Wall -Wextra -Werror -o floor floor.c       Usage: bench/README.md

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef __x86_64__
#error "the tiny init and the filter are x86-64's"
#endif

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define STACK        65536
#define NO_PROGRAMS  (MS_NOSUID | MS_NOEXEC | MS_NODEV)

enum mounts { MOUNTS_NONE, MOUNTS_PIVOT, MOUNTS_DEFAULT, MOUNTS_FULL, MOUNTS_SPEC };
enum cgroup { CGROUP_NONE, CGROUP_V1, CGROUP_V1TASKS };
enum stdio { STDIO_INHERIT, STDIO_NULL, STDIO_PIPE };

static const char *const MOUNTS[] = {"none", "pivot", "default", "full", "spec", NULL};
static const char *const CGROUP[] = {"none", "v1", "v1tasks", NULL};
static const char *const STDIO[] = {"inherit", "null", "pipe", NULL};
static const char *const CLONE[] = {"fork", "vfork", NULL};
static const char *const HOP[] = {"none", "tiny", NULL};
static const char *const SECCOMP[] = {"none", "tree", NULL};

// All that the command line decides; it does not change after main() has read it.
static struct {
    int n, warm, threads, rest_ms, ballast_mb;
    int namespaces; // CLONE_NEW*
    int mounts, nofail, vfork, hop, cgroup, caps, seccomp, stdio;
    int template; // each starts from a copy of a mount namespace that is ready
    int seconds;  // that it lasts at most; 0 is as long as it takes
    int join;     // a pid: the program is started beside it, as by an exec
    const char *label, *rootfs;
    char **program;
} asked = {.n = 200, .warm = 5, .threads = 1, .vfork = 1, .label = "floor", .rootfs = "rootfs"};

// What is made once, before the clock runs.
static struct sock_filter filter[512];
static int filter_length;
static int tiny_init = -1, template = -1;
static struct {
    char option[64], target[64]; // "memory" or "none,name=systemd"; where it goes in the new root
} hierarchies[16];
static int hierarchy_count;

static const struct {
    const char *directory, *limit, *value;
} LIMITS[] = {
    {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "268435456"},
    {"/sys/fs/cgroup/pids", "pids.max", "100"},
};
static int limit_roots[COUNT(LIMITS)];
static char joined[16][4096]; // `tasks` of the cgroups of the process that is joined
static int joined_count;

// One thread that spawns, and what it passes to its child.
struct spawner {
    int number, first, last; // its share of `took`
    char *stack;
    char name[32];              // of its cgroups
    int cgroups[COUNT(LIMITS)]; // open files that take a task, or -1
    int out[2], err[2];
    int first_process, tasks[COUNT(joined)]; // of the container that is joined: a pidfd, and its cgroups
    int done;                                // how many of its share were made
    double *took;                            // milliseconds, one for each spawn of all threads
};

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

static _Noreturn void fail(const char *what) {
    dprintf(2, "floor: %s: %s\n", what, strerror(errno));
    _exit(125);
}

static void attach(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
    if (mount(source, target, type, flags, data))
        fail(target);
}

// ---- confinement ---------------------------------------------------------------------------------------------------

// clang-format off
static const int DENIED[] = {
    SYS_acct, SYS_add_key, SYS_bpf, SYS_clock_adjtime, SYS_clock_settime, SYS_create_module, SYS_delete_module,
    SYS_finit_module, SYS_fsmount, SYS_fsopen, SYS_get_kernel_syms, SYS_get_mempolicy, SYS_init_module, SYS_ioperm,
    SYS_iopl, SYS_kcmp, SYS_kexec_file_load, SYS_kexec_load, SYS_keyctl, SYS_lookup_dcookie, SYS_mbind, SYS_mount,
    SYS_move_mount, SYS_move_pages, SYS_nfsservctl, SYS_open_by_handle_at, SYS_open_tree, SYS_perf_event_open,
    SYS_personality, SYS_pivot_root, SYS_process_vm_readv, SYS_process_vm_writev, SYS_ptrace, SYS_query_module,
    SYS_quotactl, SYS_reboot, SYS_request_key, SYS_set_mempolicy, SYS_setns, SYS_settimeofday, SYS_swapoff, SYS_swapon,
    SYS__sysctl, SYS_sysfs, SYS_umount2, SYS_unshare, SYS_uselib, SYS_userfaultfd, SYS_ustat, SYS_vhangup,
};
// clang-format on

static unsigned verdict(int call) {
    int known = call <= SYS_rseq || (call >= SYS_pidfd_send_signal && call <= SYS_set_mempolicy_home_node);
    for (size_t i = 0; i < COUNT(DENIED); i++)
        if (DENIED[i] == call)
            known = 0;
    return known ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | EPERM;
}

static void emit(int code, int yes, int no, unsigned k) {
    filter[filter_length++] = (struct sock_filter){code, yes, no, k};
}

// A search tree over the runs of calls that share a verdict; `starts` are their first calls.
static void emit_tree(const int *starts, int first, int last) {
    if (first == last) {
        emit(BPF_RET | BPF_K, 0, 0, verdict(starts[first]));
        return;
    }
    int middle = (first + last + 1) / 2, branch = filter_length;
    emit(BPF_JMP | BPF_JGE | BPF_K, 0, 0, starts[middle]);
    emit_tree(starts, first, middle - 1);
    filter[branch].jt = filter_length - branch - 1;
    emit_tree(starts, middle, last);
}

static void compile_filter(void) {
    int starts[512], runs = 0;
    for (int call = 0; call < 512; call++)
        if (call == 0 || verdict(call) != verdict(call - 1))
            starts[runs++] = call;
    emit(BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, arch));
    emit(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, AUDIT_ARCH_X86_64);
    emit(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS);
    emit(BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr));
    emit_tree(starts, 0, runs - 1);
}

static void drop_capabilities(void) {
    unsigned kept = 1u << CAP_AUDIT_WRITE | 1u << CAP_KILL | 1u << CAP_NET_BIND_SERVICE;
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2] = {{kept, kept, 0}, {0, 0, 0}};
    for (int capability = 0; capability <= CAP_LAST_CAP; capability++)
        if (capability >= 32 || !(kept >> capability & 1))
            if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) && errno != EINVAL) // EINVAL: an older kernel ends here
                fail("PR_CAPBSET_DROP");
    if (syscall(SYS_capset, &header, sets))
        fail("capset");
}

static void confine(void) {
    struct sock_fprog program = {filter_length, filter};
    if ((asked.caps || asked.seccomp) && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        fail("PR_SET_NO_NEW_PRIVS");
    if (asked.caps)
        drop_capabilities();
    if (asked.seccomp && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        fail("seccomp");
}

// ---- root file system: targets are relative to the working directory, which is the new root ------------------------

static void fill_dev(void) {
    static const struct {
        const char *path;
        int major, minor;
    } nodes[] = {{"dev/null", 1, 3},   {"dev/zero", 1, 5},    {"dev/full", 1, 7},
                 {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0}};
    static const char *const links[][2] = {
        {"/proc/self/fd", "dev/fd"},       {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"},
        {"/proc/self/fd/2", "dev/stderr"}, {"pts/ptmx", "dev/ptmx"},         {"/proc/kcore", "dev/core"},
    };
    attach("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
    for (size_t i = 0; i < COUNT(nodes); i++)
        if (mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)))
            fail(nodes[i].path);
    for (size_t i = 0; i < COUNT(links); i++)
        if (symlink(links[i][0], links[i][1]))
            fail(links[i][1]);
    if (mkdir("dev/pts", 0755) || mkdir("dev/shm", 01777) || mkdir("dev/mqueue", 0755))
        fail("dev");
}

static void mount_own_dev(void) {
    attach("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    attach("shm", "dev/shm", "tmpfs", NO_PROGRAMS, "mode=1777,size=65536k");
    attach("mqueue", "dev/mqueue", "mqueue", NO_PROGRAMS, NULL);
}

static void mount_hierarchies(void) {
    attach("tmpfs", "sys/fs/cgroup", "tmpfs", NO_PROGRAMS, "mode=755");
    for (int i = 0; i < hierarchy_count; i++) {
        const char *target = hierarchies[i].target;
        if (mkdir(target, 0755))
            fail(target);
        attach("cgroup", target, "cgroup", NO_PROGRAMS | MS_RDONLY, hierarchies[i].option);
    }
    attach(NULL, "sys/fs/cgroup", NULL, MS_REMOUNT | MS_BIND | NO_PROGRAMS | MS_RDONLY, NULL);
}

// With --nofail it looks first: a bind mount that is refused waits for an RCU grace period.
static void mask(const char *path) {
    struct stat status;
    int directory = 0;
    if (asked.nofail) {
        if (stat(path, &status))
            return;
        directory = S_ISDIR(status.st_mode);
    }
    if (!directory) {
        if (!mount("/dev/null", path, NULL, MS_BIND, NULL) || errno == ENOENT)
            return;
        if (errno != ENOTDIR)
            fail(path);
    }
    attach("tmpfs", path, "tmpfs", MS_RDONLY, NULL);
}

static void make_read_only(const char *path) {
    if (mount(path, path, NULL, MS_BIND | MS_REC, NULL)) {
        if (errno != ENOENT)
            fail(path);
        return;
    }
    attach(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | NO_PROGRAMS, NULL);
}

static void hide(void) {
    static const char *const masked[] = {
        "/proc/acpi",       "/proc/asound",      "/proc/kcore",       "/proc/keys", "/proc/latency_stats",
        "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"};
    static const char *const read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
    for (size_t i = 0; i < COUNT(masked); i++)
        mask(masked[i]);
    for (size_t i = 0; i < COUNT(read_only); i++)
        make_read_only(read_only[i]);
    attach(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL);
}

// What no two containers may share; `proc` first, for what comes later may look there.
static void mount_own(void) {
    if (asked.mounts >= MOUNTS_DEFAULT) {
        attach("proc", "proc", "proc", NO_PROGRAMS, NULL);
        if (!asked.template)
            fill_dev();
        mount_own_dev();
        attach("sysfs", "sys", "sysfs", NO_PROGRAMS | MS_RDONLY, NULL);
    }
    if (asked.mounts >= MOUNTS_SPEC)
        mount_hierarchies();
}

static void enter_root(void) {
    attach(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL);
    attach(asked.rootfs, asked.rootfs, NULL, MS_BIND | MS_REC, NULL);
    if (chdir(asked.rootfs))
        fail(asked.rootfs);
}

static void leave_old_root(void) {
    if (syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        fail("pivot_root");
}

static void change_root(void) {
    if (asked.template) { // we are in a copy of it
        mount_own();
    } else {
        enter_root();
        mount_own();
        leave_old_root();
    }
    if (asked.mounts >= MOUNTS_FULL)
        hide();
}

// A mount namespace with what containers can share, as none can write it. No process lives in it.
static void make_template(void) {
    int ready[2];
    char path[64], byte;
    if (pipe2(ready, O_CLOEXEC))
        fail("pipe2");
    pid_t pid = fork();
    if (!pid) {
        if (unshare(CLONE_NEWNS))
            fail("unshare");
        enter_root();
        fill_dev();
        leave_old_root();
        attach(NULL, "/dev", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID, NULL);
        attach(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL);
        if (write(ready[1], "", 1) != 1)
            fail("pipe");
        pause();
    }
    close(ready[1]);
    snprintf(path, sizeof path, "/proc/%d/ns/mnt", pid);
    if (pid < 0 || read(ready[0], &byte, 1) != 1 || (template = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        fail("template");
    close(ready[0]);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

// ---- the child: from clone to execve -------------------------------------------------------------------------------

static void redirect(const struct spawner *spawner) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int piped = asked.stdio == STDIO_PIPE && spawner;
    if (null < 0 || dup2(null, 0) < 0 || dup2(piped ? spawner->out[1] : null, 1) < 0 ||
        dup2(piped ? spawner->err[1] : null, 2) < 0)
        fail("stdio");
}

static _Noreturn void execute(void) {
    char *environment[] = {"PATH=/bin", NULL};
    char outside[4096];
    if (close_range(3, ~0u, CLOSE_RANGE_CLOEXEC))
        fail("close_range");
    if (asked.hop) {
        char *arguments[18] = {"init"};
        for (int i = 0; i < 16 && asked.program[i]; i++)
            arguments[i + 1] = asked.program[i];
        execveat(tiny_init, "", arguments, environment, AT_EMPTY_PATH);
        fail("execveat");
    }
    snprintf(outside, sizeof outside, "%s%s", asked.mounts == MOUNTS_NONE ? asked.rootfs : "", asked.program[0]);
    execve(outside, asked.program, environment);
    fail(outside);
}

static int contain(void *argument) {
    const struct spawner *spawner = argument;
    for (size_t i = 0; asked.cgroup && i < COUNT(LIMITS); i++)
        if (write(spawner->cgroups[i], "0", 1) != 1)
            fail("enter cgroup");
    if (asked.namespaces & CLONE_NEWCGROUP && unshare(CLONE_NEWCGROUP))
        fail("unshare");
    if (asked.namespaces & CLONE_NEWUTS && sethostname("floor", 5))
        fail("sethostname");
    if (asked.mounts)
        change_root();
    confine();
    if (asked.stdio)
        redirect(spawner);
    execute();
}

static int beside(void *unused) {
    (void)unused;
    confine();
    if (asked.stdio)
        redirect(NULL);
    execute();
}

// Borrows our memory inside of another pid namespace, which is nothing for a runtime: bench only.
static int enter(void *argument) {
    const struct spawner *spawner = argument;
    int kinds = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP;
    for (int i = 0; i < joined_count; i++)
        if (write(spawner->tasks[i], "0", 1) != 1)
            fail(joined[i]);
    if (setns(spawner->first_process, kinds))
        fail("setns");
    if (clone(beside, spawner->stack + STACK / 2, CLONE_PARENT | CLONE_VM | CLONE_VFORK, NULL) < 0)
        fail("clone");
    _exit(0);
}

// ---- the parent: one spawn -----------------------------------------------------------------------------------------

static void make_cgroups(struct spawner *spawner, int round) {
    snprintf(spawner->name, sizeof spawner->name, "floor-%d-%d-%d", getpid(), spawner->number, round);
    for (size_t i = 0; i < COUNT(LIMITS); i++) {
        if (mkdirat(limit_roots[i], spawner->name, 0755))
            fail(LIMITS[i].directory);
        int directory = openat(limit_roots[i], spawner->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int limit = openat(directory, LIMITS[i].limit, O_WRONLY | O_CLOEXEC);
        if (limit < 0 || write(limit, LIMITS[i].value, strlen(LIMITS[i].value)) < 0)
            fail(LIMITS[i].limit);
        close(limit);
        // A task that writes itself, alone, to `tasks` takes no global lock; any write to `cgroup.procs` does.
        const char *entrance = asked.cgroup == CGROUP_V1TASKS ? "tasks" : "cgroup.procs";
        spawner->cgroups[i] = openat(directory, entrance, O_WRONLY | O_CLOEXEC);
        if (spawner->cgroups[i] < 0)
            fail(entrance);
        close(directory);
    }
}

static void remove_cgroups(struct spawner *spawner) {
    for (size_t i = 0; i < COUNT(LIMITS); i++) {
        close(spawner->cgroups[i]);
        if (unlinkat(limit_roots[i], spawner->name, AT_REMOVEDIR))
            fail(spawner->name);
    }
}

static void drain(int out, int err) {
    struct pollfd ends[2] = {{out, POLLIN, 0}, {err, POLLIN, 0}};
    char buffer[4096];
    for (int open_ends = 2; open_ends;) {
        poll(ends, 2, -1);
        for (int i = 0; i < 2; i++)
            if (ends[i].fd >= 0 && ends[i].revents && read(ends[i].fd, buffer, sizeof buffer) <= 0) {
                close(ends[i].fd);
                ends[i].fd = -1; // poll(2) leaves it out
                open_ends--;
            }
    }
}

static void ended(int status) {
    if (status) {
        dprintf(2, "floor: the program ended with status %#x\n", status);
        _exit(1);
    }
}

static void join(struct spawner *spawner) {
    int first, second;
    if ((spawner->first_process = syscall(SYS_pidfd_open, asked.join, 0)) < 0)
        fail("pidfd_open");
    for (int i = 0; i < joined_count; i++)
        if ((spawner->tasks[i] = open(joined[i], O_WRONLY | O_CLOEXEC)) < 0)
            fail(joined[i]);
    pid_t pid = clone(enter, spawner->stack + STACK, SIGCHLD | CLONE_VM | CLONE_VFORK, spawner);
    if (pid < 0 || waitpid(pid, &first, 0) != pid || wait(&second) < 0)
        fail("clone");
    for (int i = 0; i < joined_count; i++)
        close(spawner->tasks[i]);
    close(spawner->first_process);
    ended(first);
    ended(second);
}

static void spawn(struct spawner *spawner, int round) {
    int status, flags = SIGCHLD | (asked.namespaces & ~CLONE_NEWCGROUP) | (asked.vfork ? CLONE_VM | CLONE_VFORK : 0);
    if (asked.cgroup)
        make_cgroups(spawner, round);
    if (asked.stdio == STDIO_PIPE && (pipe2(spawner->out, O_CLOEXEC) || pipe2(spawner->err, O_CLOEXEC)))
        fail("pipe2");
    pid_t pid = clone(contain, spawner->stack + STACK, flags, spawner);
    if (pid < 0)
        fail("clone");
    if (asked.stdio == STDIO_PIPE) {
        close(spawner->out[1]);
        close(spawner->err[1]);
        drain(spawner->out[0], spawner->err[0]);
    }
    if (waitpid(pid, &status, 0) != pid)
        fail("waitpid");
    if (asked.cgroup)
        remove_cgroups(spawner);
    ended(status);
}

// ---- the measurement -----------------------------------------------------------------------------------------------

static pthread_barrier_t gate;

static void *spawn_all(void *argument) {
    struct spawner *spawner = argument;
    if (asked.template && (unshare(CLONE_FS) || setns(template, CLONE_NEWNS)))
        fail("setns");
    for (int i = 0; i < asked.warm; i++)
        asked.join ? join(spawner) : spawn(spawner, -1 - i);
    pthread_barrier_wait(&gate);
    double end = now_ms() + asked.seconds * 1e3;
    for (int i = spawner->first; i < spawner->last && (!asked.seconds || now_ms() < end); i++) {
        if (asked.rest_ms)
            usleep(asked.rest_ms * 1000);
        double start = now_ms();
        asked.join ? join(spawner) : spawn(spawner, i);
        spawner->took[i] = now_ms() - start;
        spawner->done++;
    }
    pthread_barrier_wait(&gate);
    return NULL;
}

static int ascending(const void *one, const void *other) {
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

static void measure(void) {
    double *took = calloc(asked.n, sizeof *took);
    struct spawner *spawners = calloc(asked.threads, sizeof *spawners);
    pthread_t *threads = calloc(asked.threads, sizeof *threads);
    pthread_barrier_init(&gate, NULL, asked.threads + 1);
    for (int i = 0; i < asked.threads; i++) {
        void *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
        spawners[i] = (struct spawner){.number = i,
                                       .first = (long)asked.n * i / asked.threads,
                                       .last = (long)asked.n * (i + 1) / asked.threads,
                                       .stack = stack,
                                       .took = took};
        if (stack == MAP_FAILED || pthread_create(&threads[i], NULL, spawn_all, &spawners[i]))
            fail("thread");
    }
    pthread_barrier_wait(&gate);
    double start = now_ms();
    pthread_barrier_wait(&gate);
    double wall = now_ms() - start;
    int done = 0;
    for (int i = 0; i < asked.threads; i++) {
        pthread_join(threads[i], NULL);
        memmove(took + done, took + spawners[i].first, spawners[i].done * sizeof *took);
        done += spawners[i].done;
    }

    static const int percentiles[] = {10, 50, 90, 99};
    qsort(took, done, sizeof *took, ascending);
    printf("{\"label\": \"%s\", \"n\": %d", asked.label, done);
    for (size_t i = 0; i < COUNT(percentiles); i++)
        printf(", \"p%d\": %.4f", percentiles[i], took[(percentiles[i] * (done - 1) + 50) / 100]);
    printf(", \"min\": %.4f, \"per_s\": %.1f}\n", took[0], done / wall * 1e3);
}

// ---- preparation ---------------------------------------------------------------------------------------------------

static void open_limit_roots(void) {
    for (size_t i = 0; i < COUNT(LIMITS); i++)
        if ((limit_roots[i] = open(LIMITS[i].directory, O_PATH | O_CLOEXEC)) < 0)
            fail(LIMITS[i].directory);
}

// Each line of cgroups(7)'s /proc/self/cgroup is NUMBER:CONTROLLERS:PATH; cgroup v2's has no controllers.
static void list_hierarchies(void) {
    char line[4096];
    FILE *file = fopen("/proc/self/cgroup", "re");
    while (file && hierarchy_count < (int)COUNT(hierarchies) && fgets(line, sizeof line, file)) {
        char *rest = line;
        strsep(&rest, ":");
        char *name = strsep(&rest, ":");
        if (!name || !*name)
            continue;
        int named = !strncmp(name, "name=", 5);
        snprintf(hierarchies[hierarchy_count].option, 64, "%s%.32s", named ? "none," : "", name);
        snprintf(hierarchies[hierarchy_count].target, 64, "sys/fs/cgroup/%.32s", name + (named ? 5 : 0));
        hierarchy_count++;
    }
    if (file)
        fclose(file);
}

static void list_cgroups(void) {
    char path[64], line[4096];
    snprintf(path, sizeof path, "/proc/%d/cgroup", asked.join);
    FILE *file = fopen(path, "re");
    while (file && joined_count < (int)COUNT(joined) && fgets(line, sizeof line, file)) {
        char *rest = line;
        strsep(&rest, ":");
        char *name = strsep(&rest, ":");
        if (!name || !*name || !strcmp(rest, "/\n"))
            continue;
        rest[strcspn(rest, "\n")] = 0;
        snprintf(joined[joined_count++], sizeof *joined, "/sys/fs/cgroup/%.64s%.3900s/tasks",
                 strncmp(name, "name=", 5) ? name : name + 5, rest);
    }
    if (file)
        fclose(file);
}

// A whole program of 152 bytes, execve(argv[1], argv + 1, envp), in a memfd: the least that an init's own exec costs.
static void make_tiny_init(void) {
    static const unsigned char image[152] = {
        // ELF header: 64-bit, little-endian, ET_EXEC, EM_X86_64, entry 0x400078, one program header at 64
        0x7f, 'E', 'L', 'F', 2, 1, 1, [16] = 2, 0, 62, 0, 1, [24] = 0x78, 0, 0x40, [32] = 64, [52] = 64, 0, 56, 0, 1,
        // program header: PT_LOAD, readable and executable, the whole file at 0x400000
        [64] = 1, [68] = 5, [80] = 0, 0, 0x40, [88] = 0, 0, 0x40, [96] = 152, [104] = 152, [112] = 0, 0x10,
        // mov rax,[rsp]; lea rsi,[rsp+16]; mov rdi,[rsi]; lea rdx,[rsp+rax*8+16]; mov eax,SYS_execve; syscall; ud2
        [120] = 0x48, 0x8b, 0x04, 0x24, 0x48, 0x8d, 0x74, 0x24, 0x10, 0x48, 0x8b, 0x3e, 0x48, 0x8d, 0x54, 0xc4, 0x10,
        0xb8, 59, 0, 0, 0, 0x0f, 0x05, 0x0f, 0x0b};
    char path[32];
    int writable = memfd_create("init", MFD_CLOEXEC);
    if (writable < 0 || write(writable, image, sizeof image) != sizeof image)
        fail("memfd_create");
    snprintf(path, sizeof path, "/proc/self/fd/%d", writable);
    tiny_init = open(path, O_RDONLY | O_CLOEXEC); // what is open for writing cannot be executed
    close(writable);
}

static void hold_memory(size_t bytes) {
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("ballast");
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    for (size_t at = 0; at < bytes; at += 4096)
        memory[at] = 1;
}

static _Noreturn void refuse(const char *option, const char *value) {
    fprintf(stderr, "floor: --%s does not take %s\n", option, value);
    exit(2);
}

static int choice(const char *option, const char *value, const char *const *names) {
    for (int i = 0; names[i]; i++)
        if (!strcmp(names[i], value))
            return i;
    refuse(option, value);
}

static int number(const char *option, const char *value, int least) {
    char *end;
    long given = strtol(value, &end, 10);
    if (*end || given < least || given > 1000000)
        refuse(option, value);
    return given;
}

static int namespaces(char *list) {
    static const struct {
        const char *name;
        int flag;
    } known[] = {{"mnt", CLONE_NEWNS},  {"pid", CLONE_NEWPID}, {"ipc", CLONE_NEWIPC},
                 {"uts", CLONE_NEWUTS}, {"net", CLONE_NEWNET}, {"cgroup", CLONE_NEWCGROUP}};
    int flags = 0;
    for (char *name; (name = strsep(&list, ","));) {
        int found = 0;
        for (size_t i = 0; i < COUNT(known); i++)
            if (!strcmp(name, "all") || !strcmp(name, known[i].name))
                found |= known[i].flag;
        if (!found)
            refuse("ns", name);
        flags |= found;
    }
    return flags;
}

static void read_options(int argc, char **argv) {
    static const struct option options[] = {
        {"n", 1, 0, 'n'},       {"warm", 1, 0, 'w'},     {"threads", 1, 0, 't'}, {"rest", 1, 0, 'r'},
        {"ballast", 1, 0, 'b'}, {"ns", 1, 0, 'N'},       {"mounts", 1, 0, 'm'},  {"nofail", 0, 0, 'f'},
        {"clone", 1, 0, 'c'},   {"hop", 1, 0, 'h'},      {"cgroup", 1, 0, 'g'},  {"caps", 0, 0, 'C'},
        {"seccomp", 1, 0, 'S'}, {"stdio", 1, 0, 'i'},    {"label", 1, 0, 'l'},   {"rootfs", 1, 0, 'R'},
        {"join", 1, 0, 'j'},    {"template", 0, 0, 'T'}, {"seconds", 1, 0, 's'}, {0, 0, 0, 0},
    };
    int index = 0;
    for (int letter; (letter = getopt_long(argc, argv, "+", options, &index)) != -1;) {
        const char *name = options[index].name;
        // clang-format off
        switch (letter) {
        case 'n': asked.n = number(name, optarg, 1); break;
        case 'w': asked.warm = number(name, optarg, 0); break;
        case 't': asked.threads = number(name, optarg, 1); break;
        case 'r': asked.rest_ms = number(name, optarg, 0); break;
        case 'b': asked.ballast_mb = number(name, optarg, 0); break;
        case 'N': asked.namespaces = namespaces(optarg); break;
        case 'm': asked.mounts = choice(name, optarg, MOUNTS); break;
        case 'f': asked.nofail = 1; break;
        case 'c': asked.vfork = choice(name, optarg, CLONE); break;
        case 'h': asked.hop = choice(name, optarg, HOP); break;
        case 'g': asked.cgroup = choice(name, optarg, CGROUP); break;
        case 'C': asked.caps = 1; break;
        case 'S': asked.seccomp = choice(name, optarg, SECCOMP); break;
        case 'i': asked.stdio = choice(name, optarg, STDIO); break;
        case 'l': asked.label = optarg; break;
        case 'R': asked.rootfs = optarg; break;
        case 'j': asked.join = number(name, optarg, 1); break;
        case 'T': asked.template = 1; break;
        case 's': asked.seconds = number(name, optarg, 1); break;
        default: exit(2);
        }
        // clang-format on
    }
    static char *true_program[] = {"/bin/true", NULL};
    asked.program = optind < argc ? argv + optind : true_program;
    if (!(asked.rootfs = asked.join ? "" : realpath(asked.rootfs, NULL))) // beside another, ours is of no account
        fail("rootfs");
    if (asked.mounts && !(asked.namespaces & CLONE_NEWNS)) {
        fprintf(stderr, "floor: --mounts needs --ns mnt: it would rebuild the host's mounts\n");
        exit(2);
    }
    if (asked.hop && !asked.mounts && !asked.join) {
        fprintf(stderr, "floor: --hop needs --mounts: the program is looked up in the new root\n");
        exit(2);
    }
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    compile_filter();
    list_hierarchies();
    if (asked.join)
        list_cgroups();
    make_tiny_init();
    if (asked.template)
        make_template();
    if (asked.cgroup)
        open_limit_roots();
    if (asked.ballast_mb)
        hold_memory((size_t)asked.ballast_mb << 20);
    measure();
    return 0;
}
