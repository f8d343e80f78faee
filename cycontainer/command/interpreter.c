/* Executes the interpreter that the package belongs to, found from where this program lies and from nothing else. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"

/* No site (-S), nothing of the environment or the working directory (-I): the path is ours. Text is UTF-8, as JSON is,
   whatever the locale says, which need not be asked then. A verb makes too little garbage to look for it as often as
   usual. gathered.py is executed as a script is, but for its code being cached: to look for it takes longer. */
static const char BOOT[] = "import gc, sys; from _frozen_importlib_external import SourceFileLoader; "
                           "gc.set_threshold(50000); path = sys.argv[1] + '/cycontainer/cli/gathered.py'; "
                           "sys.path += sys.argv[1:3]; del sys.argv[1:3]; "
                           "code = SourceFileLoader('__main__', path).get_code('__main__'); "
                           "exec(code, {'__name__': '__main__', '__file__': path})";
static const char INSIDE[] = "/cycontainer/command"; /* where it lies in a source tree */
static const char NOT_INSTALLED[] = "the package cycontainer is not where this command was installed";
static const char MAIN[] = "cycontainer/cli/__main__.py";
static const char *const LIBRARIES[] = {"lib", "lib64", "local/lib"};
static const char *const PACKAGES[] = {"site-packages", "dist-packages"};
static const char *const SYSTEM[] = {"/usr/local/bin", "/usr/bin"};

struct place {
    char python[PATH_ROOM];   /* the interpreter */
    char package[PATH_ROOM];  /* the directory that has the package */
    char packages[PATH_ROOM]; /* that of other packages of the same installation */
    int minor;                /* of its version; 0 is any */
};

_Noreturn static void give_up(const char *problem) {
    exit(fail("%s", problem));
}

static bool set(char *path, const char *format, const char *one, const char *other) {
    return snprintf(path, PATH_ROOM, format, one, other) < PATH_ROOM;
}

static bool has_package(const char *directory) {
    char path[PATH_ROOM];
    return set(path, "%s/%s", directory, MAIN) && access(path, R_OK) == 0;
}

/* --- where the package is */

/* The minor version in the name of a library directory, "python3.11"; 0 for "python3", Debian's own, -1 for others. */
static int minor_of(const char *name) {
    char *end;
    long minor;
    if (strcmp(name, "python3") == 0)
        return 0;
    if (strncmp(name, "python3.", 8) != 0 || name[8] < '0' || name[8] > '9')
        return -1;
    minor = strtol(name + 8, &end, 10);
    return *end == 0 && minor >= OLDEST_MINOR && minor < 1000 ? (int)minor : -1;
}

/* The newest version's packages below a library directory; when `ours`, only if the package is among them. */
static void look_below(const char *library, struct place *place, bool ours) {
    char below[PATH_ROOM], path[PATH_ROOM];
    struct dirent *entry;
    DIR *directory = opendir(library);
    while (directory && (entry = readdir(directory))) {
        int minor = minor_of(entry->d_name);
        if (minor < 0 || (place->packages[0] && minor <= place->minor) || !set(below, "%s/%s", library, entry->d_name))
            continue;
        for (size_t index = 0; index < sizeof(PACKAGES) / sizeof(PACKAGES[0]); index++)
            if (set(path, "%s/%s", below, PACKAGES[index]) && (ours ? has_package(path) : access(path, X_OK) == 0)) {
                strcpy(place->packages, path);
                place->minor = minor;
                break;
            }
    }
    if (directory)
        closedir(directory);
}

static void look_for_packages(const char *prefix, struct place *place, bool ours) {
    char library[PATH_ROOM];
    for (size_t index = 0; index < sizeof(LIBRARIES) / sizeof(LIBRARIES[0]); index++)
        if (set(library, "%s/%s", prefix, LIBRARIES[index]))
            look_below(library, place, ours);
}

/* --- which interpreter */

static bool take_python(struct place *place, const char *directory, bool any) {
    char name[32];
    snprintf(name, sizeof(name), place->minor ? "python3.%d" : "python3", place->minor);
    if (set(place->python, "%s/%s", directory, name) && access(place->python, X_OK) == 0)
        return true;
    return any && set(place->python, "%s/%s", directory, "python3") && access(place->python, X_OK) == 0;
}

static bool look_for_python(struct place *place, const char *directory) {
    char marker[PATH_ROOM];
    bool environment = set(marker, "%s/%s", directory, "../pyvenv.cfg") && access(marker, R_OK) == 0;
    if (take_python(place, directory, environment))
        return true;
    for (size_t index = 0; index < sizeof(SYSTEM) / sizeof(SYSTEM[0]); index++)
        if (take_python(place, SYSTEM[index], false))
            return true;
    return false;
}

/* In a source tree: that of its virtual environment, or the system's. */
static void find_in_tree(const char *tree, struct place *place) {
    char environment[PATH_ROOM];
    strcpy(place->package, tree);
    if (!set(environment, "%s/%s", tree, ".venv"))
        give_up("its path is too long");
    look_for_packages(environment, place, false);
    strcat(environment, "/bin");
    if (!look_for_python(place, environment))
        give_up("no interpreter in this source tree's .venv, nor python3 in /usr/local/bin or /usr/bin");
}

/* Among the scripts of an installation. */
static void find_installed(const char *directory, struct place *place) {
    char prefix[PATH_ROOM], *slash;
    strcpy(prefix, directory);
    slash = strrchr(prefix, '/');
    if (!slash) /* it lies in the root directory, or in no directory */
        give_up(NOT_INSTALLED);
    *slash = 0;
    look_for_packages(prefix, place, true);
    strcpy(place->package, place->packages);
#ifdef TREE
    if (!place->package[0] && has_package(TREE)) { /* an editable installation */
        strcpy(place->package, TREE);
        look_for_packages(prefix, place, false);
    }
#endif
    if (!place->package[0])
        give_up(NOT_INSTALLED);
    if (!look_for_python(place, directory))
        give_up("no interpreter of the version that cycontainer was installed for beside this command, in "
                "/usr/local/bin or in /usr/bin");
}

static void find(struct place *place) {
    char path[PATH_ROOM], *slash;
    ssize_t length = readlink("/proc/self/exe", path, 4096);
    size_t inside = sizeof(INSIDE) - 1;
    if (length <= 0 || length >= 4096)
        give_up("this program cannot tell where it lies: it needs /proc");
    path[length] = 0;
    slash = strrchr(path, '/');
    *slash = 0;
    length = slash - path;
    if ((size_t)length > inside && strcmp(slash - inside, INSIDE) == 0) {
        slash[-(ssize_t)inside] = 0;
        find_in_tree(path, place);
    } else {
        find_installed(path, place);
    }
}

/* The interpreter would end in a "fatal error". */
static void check_standard_descriptors(void) {
    struct stat status;
    for (int fd = 0; fd < 3; fd++)
        if (fstat(fd, &status) == 0 && S_ISDIR(status.st_mode))
            give_up("standard input, output or error is a directory");
}

_Noreturn void execute_interpreter(char **words) {
    static struct place place;
    char **command;
    size_t count = 0;
    check_standard_descriptors();
    find(&place);
    while (words[count])
        count++;
    if (!place.packages[0]) /* an empty entry would be the working directory */
        strcpy(place.packages, place.package);
    command = calloc(count + 10, sizeof(char *));
    if (!command)
        give_up("out of memory");
    const char *first[] = {place.python, "-I", "-S", "-X", "utf8", "-c", BOOT, place.package, place.packages};
    memcpy(command, first, sizeof(first));
    memcpy(command + sizeof(first) / sizeof(first[0]), words, count * sizeof(char *));
    execv(place.python, command);
    give_up(strerror(errno));
}
