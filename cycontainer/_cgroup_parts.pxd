# What the parts of `cgroups` share: cgroup_parts.h says what each is, and where it stands.

cdef extern from "cgroup_parts.h" nogil:
    enum:
        PATIENCE_US, LONGEST

    struct Numbers:
        long *items
        long count, room
    struct Write:
        const char *file
        const char *value
        size_t length
        bint instead, done
    struct Place:
        const char *mount
        const char *path
        Write *writes
        int count
        bint cpuset, freezer, pids, late, unified
        const char *wanted
        const char *needed
        const char *devices
        size_t devices_length
        bint occupied, made, settled
        int root, directory, tasks
    struct Failure:
        int place
        const char *file
        const Write *write
        long above
        char value[64]

    long now_us()
    long nap(long us)
    int write_file(int directory, const char *file, const char *value, size_t length)
    long read_file(int directory, const char *file, char *text, size_t room)
    int open_directory(int root, const char *path)
    int collect(int top, Numbers *found)
    int thaw_tree(int top)
    int remove_below(int top, long deadline)
    int append_to(Numbers *numbers, long item)
    void put_in_order(Numbers *numbers)
    bint holds(const Numbers *numbers, long item)

    int open_root(Place *place)
    int write_all(Place *place, Failure *failure)
    int make_all(Place *places, int count, Failure *failure)
    int limit_all(Place *places, int count, Failure *failure)
    void unmake_all(Place *places, int count)
    int remove_all(Place *places, int count, int *at)
    int remove_within(Place *places, int count, int namespace)

    int freeze_place(Place *place, long deadline)
    int thaw_place(Place *place)
    int collect_all(Place *places, int count, Numbers *found)
    int kill_all(Place *places, int count, long deadline)
    int signal_all(Place *places, int count, int number)

    int attach_devices(int directory, const char *program, size_t length)
