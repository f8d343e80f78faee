/* Raw Linux system calls and the structures they take, without libc and without its errno: for the init, and for the
 * child of clone3 that shares its parent's memory. x86_64 and aarch64. */
#ifndef CYCONTAINER_INIT_SYS_H
#define CYCONTAINER_INIT_SYS_H

#include <asm/unistd.h>

/* Newer than the oldest headers that we build with; one number on every architecture. */
#ifndef __NR_pidfd_open
#define __NR_pidfd_open 434
#endif
#ifndef __NR_clone3
#define __NR_clone3 435
#endif
#ifndef __NR_close_range
#define __NR_close_range 436
#endif
#ifndef __NR_openat2
#define __NR_openat2 437
#endif
#ifndef __NR_faccessat2
#define __NR_faccessat2 439
#endif
#ifndef __NR_mount_setattr
#define __NR_mount_setattr 442
#endif
#ifndef __NR_open_tree
#define __NR_open_tree  428
#define __NR_move_mount 429
#define __NR_fsopen     430
#define __NR_fsconfig   431
#define __NR_fsmount    432
#endif

#if defined(__x86_64__)
static inline long sys6(long n, long a, long b, long c, long d, long e, long f) {
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long r;
    __asm__ volatile("syscall"
                     : "=a"(r)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return r;
}
#elif defined(__aarch64__)
static inline long sys6(long n, long a, long b, long c, long d, long e, long f) {
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#else
#error "the init knows the system calls of x86_64 and aarch64 only"
#endif
#define sys5(n, a, b, c, d, e) sys6(n, a, b, c, d, e, 0)
#define sys4(n, a, b, c, d)    sys6(n, a, b, c, d, 0, 0)
#define sys3(n, a, b, c)       sys6(n, a, b, c, 0, 0, 0)
#define sys2(n, a, b)          sys6(n, a, b, 0, 0, 0, 0)
#define sys1(n, a)             sys6(n, a, 0, 0, 0, 0, 0)
#define sys0(n)                sys6(n, 0, 0, 0, 0, 0, 0)

struct clone_arguments { /* clone3(2) */
    unsigned long flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size,
        cgroup;
};
struct open_how_ { /* openat2(2) */
    unsigned long flags, mode, resolve;
};
struct mount_attributes { /* mount_setattr(2) */
    unsigned long attr_set, attr_clr, propagation, userns_fd;
};
struct file_status { /* statx(2) */
    unsigned int stx_mask, stx_blksize;
    unsigned long stx_attributes;
    unsigned int stx_nlink, stx_uid, stx_gid;
    unsigned short stx_mode, pad1;
    unsigned long stx_ino, stx_size, stx_blocks, stx_attributes_mask;
    struct {
        long tv_sec;
        unsigned int tv_nsec;
        int pad;
    } stx_atime, stx_btime, stx_ctime, stx_mtime;
    unsigned int stx_rdev_major, stx_rdev_minor, stx_dev_major, stx_dev_minor;
    unsigned long stx_mnt_id, spare[13];
};
struct fs_status { /* statfs(2) */
    long f_type, f_bsize, f_blocks, f_bfree, f_bavail, f_files, f_ffree, f_fsid, f_namelen, f_frsize, f_flags,
        f_spare[4];
};
struct message_vector {
    void *base;
    unsigned long length;
};
struct message_header { /* sendmsg(2), recvmsg(2) */
    void *name;
    unsigned int name_length, pad1;
    struct message_vector *vectors;
    unsigned long vector_count;
    void *control;
    unsigned long control_length;
    int flags, pad2;
};
struct control_header { /* cmsg(3), followed by its data */
    unsigned long length;
    int level, type;
};
struct signal_action { /* rt_sigaction(2) */
    unsigned long handler, flags, restorer, mask;
};
struct poll_entry { /* ppoll(2) */
    int fd;
    short events, revents;
};
struct signal_info { /* signalfd(2) */
    unsigned int signo;
    int error, code;
    unsigned char rest[116];
};
struct resource_usage { /* getrusage(2) */
    long user_s, user_us, system_s, system_us, maxrss, rest[13];
};
struct interface_request { /* netdevice(7) */
    char name[16];
    short flags;
    char rest[22];
};
struct capability_header {
    unsigned int version;
    int pid;
};
struct capability_data {
    unsigned int effective, permitted, inheritable;
};
struct window_size { /* ioctl_tty(2) */
    unsigned short rows, columns, x, y;
};
struct filter_program { /* seccomp(2) */
    unsigned short length, pad[3];
    void *filter;
};

/* clone3(2); with a stack of its own, the child starts in run(argument) there and exits with what that returns. */
static inline long begin_onto_stack(long number, long first, long second, int (*run)(void *), void *argument) {
#if defined(__x86_64__)
    register void *r8 __asm__("r8") = (void *)run;
    register void *r9 __asm__("r9") = argument;
    long r;
    __asm__ volatile("syscall\n\t"
                     "test %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "and $-16, %%rsp\n\t"
                     "mov %%r9, %%rdi\n\t"
                     "call *%%r8\n\t"
                     "mov %%eax, %%edi\n\t"
                     "mov $60, %%eax\n\t"
                     "syscall\n"
                     "1:"
                     : "=a"(r)
                     : "0"(number), "D"(first), "S"(second), "r"(r8), "r"(r9)
                     : "rcx", "r11", "rdx", "r10", "memory", "cc");
    return r;
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = first;
    register long x1 __asm__("x1") = second;
    register void *x9 __asm__("x9") = (void *)run;
    register void *x10 __asm__("x10") = argument;
    __asm__ volatile("svc 0\n\t"
                     "cbnz x0, 1f\n\t"
                     "mov x29, #0\n\t"
                     "mov x0, x10\n\t"
                     "blr x9\n\t"
                     "mov x8, #93\n\t"
                     "svc 0\n"
                     "1:"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x9), "r"(x10)
                     : "memory", "cc");
    return x0;
#endif
}

static inline long clone_onto_stack(struct clone_arguments *args, unsigned long size, int (*run)(void *),
                                    void *argument) {
    return begin_onto_stack(__NR_clone3, (long)args, (long)size, run, argument);
}

/* clone(2), for where a filter answers clone3 with ENOSYS; flags of memory and signals only. */
static inline long fork_onto_stack(unsigned long flags, void *top, int (*run)(void *), void *argument) {
    return begin_onto_stack(__NR_clone, (long)flags, (long)top, run, argument);
}

/* --- of copyup.pyx ------------------------------------------------------------------------------------------------ */

/* Not the same number everywhere, unlike the other O_ flags. */
#if defined(__aarch64__)
#define OPEN_DIRECTORY 040000
#define OPEN_NOFOLLOW  0100000
#else
#define OPEN_DIRECTORY 0200000
#define OPEN_NOFOLLOW  0400000
#endif
struct directory_entry { /* getdents64(2) */
    unsigned long ino, next;
    unsigned short length;
    unsigned char type;
    char name[];
};

#endif
