/* Makes, limits, enters, leaves and removes a cgroup, N times, as bench/cgroups.py does it with the library: the same
 * system calls and nothing else. Prints the nanoseconds of each. As root.
 *
 *     cgroup_floor N NAME FILE=VALUE... -- MOUNT FILE=VALUE... -- MOUNT ...
 *
 * Each MOUNT is a hierarchy, and what follows is written there. One that has a file `tasks` is cgroup v1's.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>
#include <linux/openat2.h>

enum { MOST = 4 };

struct hierarchy {
    const char *mount, *file[MOST], *value[MOST], *procs;
    int writes, home, root, directory;
};

static struct hierarchy hierarchies[MOST];
static int count;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

static void put(int directory, const char *file, const char *value) {
    int fd = openat(directory, file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || write(fd, value, strlen(value)) < 0)
        die(file);
    close(fd);
}

static void look(int directory, const char *file) {
    char text[512];
    int fd = openat(directory, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    while (read(fd, text, sizeof(text)) > 0)
        continue;
    close(fd);
}

static void make(struct hierarchy *each, const char *name) {
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                           .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS};
    struct statfs status;
    each->root = open(each->mount, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (each->root < 0 || fstatfs(each->root, &status) < 0 || mkdirat(each->root, name, 0755) < 0)
        die(name);
    each->directory = (int)syscall(SYS_openat2, each->root, name, &how, sizeof(how));
    if (strcmp(each->procs, "cgroup.procs") == 0)
        look(each->directory, "cgroup.controllers"); /* what it was given */
    for (int index = 0; index < each->writes; index++)
        put(each->directory, each->file[index], each->value[index]);
}

static void once(const char *name) {
    for (int index = 0; index < count; index++)
        make(&hierarchies[index], name);
    for (int index = 0; index < count; index++)
        put(hierarchies[index].directory, hierarchies[index].procs, "0");
    for (int index = 0; index < count; index++)
        if (write(hierarchies[index].home, "0", 1) < 0)
            die("the way back");
    for (int index = 0; index < count; index++) {
        if (unlinkat(hierarchies[index].root, name, AT_REMOVEDIR) < 0)
            die(name);
        close(hierarchies[index].root);
        close(hierarchies[index].directory);
    }
}

static void read_hierarchy(char **words, struct hierarchy *each) {
    char path[4096];
    each->mount = *words++;
    for (; *words && strcmp(*words, "--") != 0; words++) {
        char *equals = strchr(*words, '=');
        *equals = 0;
        each->file[each->writes] = *words;
        each->value[each->writes++] = equals + 1;
    }
    snprintf(path, sizeof(path), "%s/tasks", each->mount);
    each->procs = access(path, F_OK) == 0 ? "tasks" : "cgroup.procs";
    snprintf(path, sizeof(path), "%s/%s", each->mount, each->procs);
    each->home = open(path, O_WRONLY | O_CLOEXEC);
    if (each->home < 0)
        die(path);
}

int main(int argc, char **argv) {
    long number = argc > 3 ? atol(argv[1]) : 0;
    for (int index = 3; index < argc; index++)
        if (strcmp(argv[index - 1], "--") == 0)
            read_hierarchy(&argv[index], &hierarchies[count++]);
    for (long round = 0; round < number; round++) {
        long start = now();
        once(argv[2]);
        printf("%ld\n", now() - start);
    }
    return 0;
}
