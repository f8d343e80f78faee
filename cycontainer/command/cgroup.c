/* A container's cgroups, by the parts that the module `cgroups` is made of, too; Cgroup's counterpart. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cgroup_parts.h"
#include "command.h"

/* Names between slashes, none of them empty, "." or "..": cgroup_place.check_path. */
static bool is_below(const char *path) {
    for (const char *name = path; name; name = strchr(name, '/') ? strchr(name, '/') + 1 : NULL) {
        size_t length = strcspn(name, "/");
        if (length == 0 || (length == 1 && name[0] == '.') || (length == 2 && name[0] == '.' && name[1] == '.'))
            return false;
    }
    return strlen(path) < LONGEST - 1;
}

static void open_place(const struct cgroup *cgroup, struct Place *place) {
    int kind;
    place->root = place->directory = place->tasks = -1;
    place->mount = cgroup->mount;
    place->path = cgroup->path[0] == '/' ? cgroup->path + 1 : cgroup->path;
    if (!is_below(place->path))
        hand_on();
    kind = open_root(place);
    if (kind < 0)
        hand_on();
    place->unified = kind == 1;
    place->cpuset = !place->unified && has_controller(cgroup, "cpuset");
    place->freezer = !place->unified && has_controller(cgroup, "freezer");
    place->pids = !place->unified && has_controller(cgroup, "pids");
    place->directory = open_directory(place->root, place->path);
    if (place->directory < 0 && place->directory != -ENOENT)
        hand_on();
    if (place->directory < 0) /* there is nothing to kill and nothing to remove */
        place->directory = -1;
}

/* Opened when it is first asked for. */
static struct Place *places_of(const struct state *state) {
    static struct Place places[MOST_CGROUPS];
    static bool opened;
    for (int index = 0; !opened && index < state->cgroups; index++)
        open_place(&state->cgroup[index], &places[index]);
    opened = true;
    return places;
}

static struct Place *freezer_of(const struct state *state) {
    struct Place *places = places_of(state);
    for (int index = 0; index < state->cgroups; index++)
        if (places[index].directory >= 0 && (places[index].unified || places[index].freezer))
            return &places[index];
    hand_on();
}

/* 0, or a negative errno; what was refused before anyone has got it is handed on. */
int signal_cgroup(const struct state *state, int number) {
    int error = state->cgroups ? signal_all(places_of(state), state->cgroups, number) : 0;
    if (error == -EDEADLK || error == -EXDEV)
        hand_on();
    return error;
}

void freeze(const struct state *state) {
    struct Place *place = freezer_of(state);
    struct Numbers found = {0};
    if (collect_all(places_of(state), state->cgroups, &found) < 0)
        hand_on();
    if (holds(&found, getpid())) /* we would stop ourselves */
        hand_on();
    if (freeze_place(place, now_us() + PATIENCE_US) < 0)
        hand_on();
}

void thaw(const struct state *state) {
    int error = thaw_place(freezer_of(state));
    if (error < 0 && error != -ENOENT && error != -ENODEV) /* of one that is gone, nobody waits */
        hand_on();
}

static struct Place holding = {.directory = -1}; /* whom SIGKILL is to end may be frozen there */

/* Opens it beforehand: when some are dead, nothing is handed on, for the interpreter would find nobody to kill. */
void find_holding(const struct state *state) {
    for (int index = 0; index < state->cgroups; index++) {
        if (!has_controller(&state->cgroup[index], "freezer"))
            continue;
        open_place(&state->cgroup[index], &holding);
        if (holding.directory >= 0 && faccessat(holding.directory, V1_FROZEN[0], W_OK, 0) < 0 && errno != ENOENT)
            hand_on();
        return;
    }
    if (is_frozen(state))
        holding = *freezer_of(state);
}

/* What has to run to die of SIGKILL: in v1 what is frozen, also by the container itself, further below. 0, or a
   negative errno. */
int thaw_to_die(void) {
    int error = 0;
    if (holding.directory >= 0)
        error = holding.unified ? thaw_place(&holding) : thaw_tree(holding.directory);
    return error == -ENOENT || error == -ENODEV ? 0 : error;
}

void kill_cgroup(const struct state *state) {
    if (kill_all(places_of(state), state->cgroups, now_us() + KILL_PATIENCE_US) < 0)
        hand_on();
}

void remove_cgroup(const struct state *state) {
    int at;
    if (remove_all(places_of(state), state->cgroups, &at) < 0)
        hand_on();
}
