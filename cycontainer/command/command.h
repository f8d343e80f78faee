/* What the files of the compiled command share.

   The command answers a few verbs itself, when all is as usual. Whatever is not (an option that it does not know, a
   damaged state, a hook, an error that it has no words for) it hands on: `hand_on` executes the interpreter with the
   same words, and that begins anew. So nothing may have been changed by then that cannot be done twice. */
#ifndef COMMAND_H
#define COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "facts.h"

enum { MOST_CGROUPS = 64, MOST_CONTROLLERS = 32, MOST_ANNOTATIONS = 128, MOST_VERBS = 16, PATH_ROOM = 4096 + 512 };

/* A verb's words, read. */
struct call {
    const char *verb;
    const char *root;           /* absolute */
    bool root_given;            /* else it is the default one, which may be missing */
    const char *value[OPTIONS]; /* of an option, some text of a flag, NULL when it was not given */
    const char *operand[2];
    int operands;
};

/* A text that grows. */
struct text {
    char *start;
    size_t length, room;
};

/* A container's cgroup in one hierarchy. */
struct cgroup {
    const char *mount, *path;
    const char *controller[MOST_CONTROLLERS + 1]; /* NULL at the end */
};

/* What is kept of a container: state_text.py says what each is. It points into the text that it was read from. */
struct state {
#define TEXT(key, needed)   const char *key; /* NULL when there is none */
#define NUMBER(key, needed) long key;        /* -1 when there is none */
    STATE_TEXTS(TEXT)
    STATE_NUMBERS(NUMBER)
#undef TEXT
#undef NUMBER
    struct cgroup cgroup[MOST_CGROUPS];
    int cgroups;
    const char *annotation[MOST_ANNOTATIONS][2];
    int annotations;
    const char *python[MOST_VERBS]; /* verbs that are the interpreter's */
    int pythons;
    bool resctrl;
};

/* What the kernel says of a process. */
struct process {
    int error; /* why it cannot say more; a process that has ended is no error */
    bool there;
    char name[64], letter;
    unsigned long long start_time;
};

/* main.c */
_Noreturn void hand_on(void);

/* interpreter.c */
_Noreturn void execute_interpreter(char **words);

/* report.c */
void add(struct text *text, const char *more);
void add_number(struct text *text, long number);
void add_quoted(struct text *text, const char *plain);
bool is_plain(const char *text);
int print(const char *output, size_t length);
int fail(const char *format, const char *what);
int fail_with_errno(const char *path, int code);
void report_to(const char *log, const char *form);

/* state.c */
bool is_id(const char *name);
int parse_state(char *text, size_t length, struct state *state);
int open_container(const char *root, const char *id);
bool load_state(int directory, const char *id, struct state *state);
bool has_controller(const struct cgroup *cgroup, const char *controller);
bool needs_interpreter(const struct state *state, const char *verb);

/* status.c */
struct process process_of(long pid);
bool is_alive(const struct state *state);
bool is_frozen(const struct state *state);
bool exceeded_memory(const struct state *state);
enum status status_of(int directory, const struct state *state);

/* cgroup.c: what fails is handed on, but for what is killed */
int signal_cgroup(const struct state *state, int number);
void freeze(const struct state *state);
void thaw(const struct state *state);
void find_holding(const struct state *state);
int thaw_to_die(void);
void kill_cgroup(const struct state *state);
void remove_cgroup(const struct state *state);

/* signals.c */
int open_first(const struct state *state);
int send_signal(int pidfd, int number);
bool has_ended(int pidfd, int timeout_ms);
int answer_kill(const struct call *call);

/* life.c */
int answer_start(const struct call *call);
int answer_pause(const struct call *call);
int answer_resume(const struct call *call);
int answer_delete(const struct call *call);

/* show.c */
int answer_state(const struct call *call);
int answer_list(const struct call *call);

#endif
