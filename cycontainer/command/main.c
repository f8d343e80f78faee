/* The `cycontainer` command: its words, and whose they are: its own, or the interpreter's. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"

struct verb {
    const char *name;
    const struct option *options;
    int least, most; /* operands */
    int (*answer)(const struct call *call);
};

static const struct verb OURS[] = {
#define ANSWERED(name, table) {#name, table##_OPTIONS, table##_LEAST, table##_MOST, answer_##name},
    VERBS(ANSWERED)};

/* What it can do something with; any other is handed on. */
static const bool UNDERSTOOD[OPTIONS] = {
    [OPTION_ROOT] = true,
    [OPTION_LOG] = true,
    [OPTION_LOG_FORMAT] = true,
    [OPTION_VERSION] = true,
    [OPTION_FORMAT] = true,
    [OPTION_QUIET] = true,
    [OPTION_ALL] = true,
    [OPTION_FORCE] = true,
    [OPTION_SYSTEMD_CGROUP] = true,
    [OPTION_CGROUP_MANAGER] = true,
};

static char **every_word;

_Noreturn void hand_on(void) {
    execute_interpreter(every_word);
}

/* As the interpreter's side does it: what we open must not become a container's standard output. */
static void open_standard_descriptors(void) {
    struct stat status;
    for (int fd = 0; fd < 3; fd++)
        if (fstat(fd, &status) < 0)
            open("/dev/null", O_RDWR); /* the lowest free number, which is this */
}

static const struct option *option_named(const struct option *known, const char *word, size_t length) {
    for (; known->name; known++)
        if (strlen(known->name) == length && memcmp(known->name, word, length) == 0)
            return known;
    return NULL;
}

/* Reads one option at *word, and its value, which may be the next word; *word is the last that was read. */
static void read_option(const struct option *known, char ***word, struct call *call) {
    const char *text = **word, *equals = strchr(text, '=');
    const struct option *option = option_named(known, text, equals ? (size_t)(equals - text) : strlen(text));
    if (!option || !UNDERSTOOD[option->id] || (equals && !option->takes_value))
        hand_on();
    if (option->takes_value && !equals && !*++*word)
        hand_on();
    call->value[option->id] = !option->takes_value ? "given" : equals ? equals + 1 : **word;
}

/* The global options; what follows them. */
static char **read_global(char **word, struct call *call) {
    for (; *word && (*word)[0] == '-'; word++) {
        if (strcmp(*word, "-") == 0 || strcmp(*word, "--") == 0)
            hand_on();
        read_option(GLOBAL_OPTIONS, &word, call);
    }
    return word;
}

static void read_words(const struct verb *verb, char **word, struct call *call) {
    for (; *word; word++) {
        if ((*word)[0] == '-' && (*word)[1])
            read_option(verb->options, &word, call);
        else if (call->operands == verb->most)
            hand_on();
        else
            call->operand[call->operands++] = *word;
    }
    if (call->operands < verb->least)
        hand_on();
}

/* Whether a path is one that os.path.abspath leaves as it is. */
static bool is_absolute(const char *path) {
    size_t length = strlen(path);
    if (path[0] != '/' || length > 3000 || path[length - 1] == '/' || strstr(path, "//"))
        return false;
    for (const char *at = strstr(path, "/."); at; at = strstr(at + 1, "/."))
        if (at[2] == 0 || at[2] == '/' || (at[2] == '.' && (at[3] == 0 || at[3] == '/')))
            return false;
    return true;
}

static void find_root(struct call *call) {
    static char path[PATH_ROOM];
    const char *given = call->value[OPTION_ROOT], *runtime = getenv("XDG_RUNTIME_DIR");
    call->root_given = given != NULL;
    if (given) {
        call->root = given;
    } else if (geteuid() == 0) {
        call->root = DEFAULT_ROOT;
    } else if (runtime && is_absolute(runtime)) {
        stpcpy(stpcpy(path, runtime), "/" ROOT_NAME);
        call->root = path;
    }
    if (!call->root || !is_absolute(call->root))
        hand_on();
}

/* Where to report to, if that is said as it should be. */
static void find_log(const struct call *call) {
    const char *log = call->value[OPTION_LOG], *form = call->value[OPTION_LOG_FORMAT];
    if (form && strcmp(form, LOG_TEXT) != 0 && strcmp(form, LOG_JSON) != 0)
        hand_on();
    if (log && !is_plain(log))
        hand_on();
    if (log && strncmp(log, LOG_SCHEME, sizeof(LOG_SCHEME) - 1) == 0)
        log += sizeof(LOG_SCHEME) - 1;
    report_to(log, form);
}

/* Who makes cgroups is nothing to verbs that find them in the state; but there must be one of that name. */
static void check_manager(const char *name) {
    for (size_t index = 0; name && index < sizeof(MANAGERS) / sizeof(MANAGERS[0]); index++)
        if (strcmp(name, MANAGERS[index]) == 0)
            return;
    if (name)
        hand_on();
}

static int answer(const struct verb *verb, char **word, struct call *call) {
    read_words(verb, word, call);
    call->verb = verb->name;
    find_root(call);
    find_log(call);
    check_manager(call->value[OPTION_CGROUP_MANAGER]);
    if (verb->least > 0 && !is_id(call->operand[0]))
        hand_on();
    return verb->answer(call);
}

int main(int argc, char **argv) {
    struct call call = {0};
    char **word;
    open_standard_descriptors();
    if (getauxval(AT_SECURE)) /* who may call it would be root on this machine */
        return fail("%s", "refused: it has a set-user-id or set-group-id bit, or file capabilities");
    every_word = argc > 0 ? argv + 1 : argv;
    word = read_global(every_word, &call);
    if (call.value[OPTION_VERSION])
        return print(VERSION_TEXT, sizeof(VERSION_TEXT) - 1);
    for (const struct verb *verb = OURS; *word && verb < OURS + sizeof(OURS) / sizeof(OURS[0]); verb++)
        if (strcmp(*word, verb->name) == 0)
            return answer(verb, word + 1, &call);
    hand_on();
}
