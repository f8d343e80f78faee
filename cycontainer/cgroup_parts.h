/* What the parts of `cgroups` share. They are Cython without Python, as the init is, and are linked into that module
   and into the compiled command: _cgroupfs.pyx, _cgrouptree.pyx, _cgroupkill.pyx, _cgroupdevices.pyx. */
#ifndef CYCONTAINER_CGROUP_PARTS_H
#define CYCONTAINER_CGROUP_PARTS_H
#include <stddef.h>

#define PATIENCE_US 2000000L /* how long an emptied cgroup may stay busy, and a process take to freeze */
#define LONGEST     4096     /* PATH_MAX */

struct Numbers {
    long *items;
    long count, room;
};

struct Write {
    const char *file, *value;
    size_t length;
    int instead; /* only where the file of the one before is missing; with no file: that is no error */
    int done;    /* it has been written */
};

/* One hierarchy's part of a cgroup; the texts are held by who made it. */
struct Place {
    const char *mount;
    const char *path; /* below the mount, without a slash in front */
    struct Write *writes;
    int count;
    int cpuset, freezer, pids; /* v1 */
    int late;                  /* v1's devices: its values are written last */
    int unified;               /* v2, and with it: */
    const char *wanted;        /* controllers that it is to have if it can be: "cpu memory" */
    const char *needed;        /* and those that it must have */
    const char *devices;       /* a program, or NULL */
    size_t devices_length;
    int occupied;               /* one that exists is taken with the processes that are in it */
    int made;                   /* the directory was not there before */
    int settled;                /* v2: nobody is about to hand on controllers to it */
    int root, directory, tasks; /* -1 is none */
};

/* What refused. */
struct Failure {
    int place;
    const char *file;          /* NULL: the directory itself */
    const struct Write *write; /* NULL: nothing was written */
    long above;                /* -1, or the length of the path of the parent that it is about */
    char value[64];            /* what a parent was to be given */
};

/* All return a negative errno when they fail. */

/* _cgrouptree.pyx */
long now_us(void);
long nap(long us);
int write_file(int directory, const char *file, const char *value, size_t length);
long read_file(int directory, const char *file, char *text, size_t room);
int open_directory(int root, const char *path);
int collect(int top, struct Numbers *found);
int thaw_tree(int top);
int remove_below(int top, long deadline);
int append_to(struct Numbers *numbers, long item);
void put_in_order(struct Numbers *numbers);
int holds(const struct Numbers *numbers, long item);

/* _cgroupfs.pyx */
int open_root(struct Place *place);
int write_all(struct Place *place, struct Failure *failure);
int make_all(struct Place *places, int count, struct Failure *failure);
int limit_all(struct Place *places, int count, struct Failure *failure);
void unmake_all(struct Place *places, int count);
int remove_all(struct Place *places, int count, int *at);
int remove_within(struct Place *places, int count, int user_namespace);

/* _cgroupkill.pyx */
int freeze_place(struct Place *place, long deadline);
int thaw_place(struct Place *place);
int collect_all(struct Place *places, int count, struct Numbers *found);
int kill_all(struct Place *places, int count, long deadline);
int signal_all(struct Place *places, int count, int number);

/* _cgroupdevices.pyx */
int attach_devices(int directory, const char *program, size_t length);
#endif
