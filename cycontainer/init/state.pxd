"""What the init remembers between steps. No descriptor is -1."""

from cycontainer._steps cimport MOST_KEPT, Header, Step

cdef struct State:
    char *plan
    Header *header
    const Step *steps
    long at                # the step that is being carried out
    int base               # the first descriptor that is the init's
    int sync               # the socket to the launcher, or what `start` reads
    int started            # the latter
    int root               # the container's root
    int source             # what the next step of the file tree works on: a detached mount, or an fs context
    int target             # where OP_ATTACH will put it
    int held               # a directory inside the root, in which things are made
    int proc               # a verified procfs
    int empty              # the empty, read-only directory that masks directories, where it is attached
    int null               # the null device that masks all else
    int null_kept          # it is not attached anywhere yet
    int kept[MOST_KEPT]    # mounts that a later step takes as its source
    const char *program    # what OP_LOOK_UP found
    int failed             # set by the program's side of OP_FORK, read by pid 1
