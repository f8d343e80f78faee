/* Reads states as the compiled command does, from files, or whatever libFuzzer makes up:

       clang -g -O1 -fsanitize=fuzzer,address,undefined -DFUZZER ... tests/fuzz_state.c     (tests/test_fuzz_state.py)

   For a file that is accepted, it prints what was read, a value a line, in hexadecimal; "-" for one that is handed on.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>

/* clang-format off: show.c needs the names of the others */
#include "../cycontainer/command/report.c"
#include "../cycontainer/command/state.c"
#include "../cycontainer/command/status.c"
#include "../cycontainer/command/show.c"
/* clang-format on */

static jmp_buf handed_on;

const char *__asan_default_options(void); /* a command frees nothing that its end frees */
const char *__asan_default_options(void) {
    return "detect_leaks=0";
}

_Noreturn void hand_on(void) {
    longjmp(handed_on, 1);
}

/* What the verbs do with a state, short of asking the kernel. */
static void use(const struct state *state) {
    static struct summary summary;
    static struct text text;
    text.length = 0;
    summary.state = *state;
    summary.pid = state->pid, summary.status = STATUSES[0], summary.owner = "root";
    if (setjmp(handed_on) == 0) {
        needs_interpreter(state, "start");
        add_document(&text, &summary, state->annotations ? ANNOTATED_IN_LINES : PLAIN_IN_LINES);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char text[STATE_BYTES + 2];
    static struct state state;
    if (size > STATE_BYTES)
        return 0;
    memcpy(text, data, size);
    if (parse_state(text, size, &state) == 0)
        use(&state);
    return 0;
}

#ifndef FUZZER
static void show(const char *value) {
    for (; value && *value; value++)
        printf("%02x", (unsigned char)*value);
    putchar('\n');
}

static void show_number(long number) {
    char text[32];
    snprintf(text, sizeof(text), "%ld", number);
    show(text);
}

static void show_all(const struct state *state) {
    const char *texts[] = {state->id, state->bundle, state->rootfs, state->version, state->created, state->program};
    for (size_t index = 0; index < sizeof(texts) / sizeof(texts[0]); index++)
        show(texts[index]);
    show_number(state->owner);
    show_number(state->pid);
    show_number(state->start_time);
    show_number(state->rootless != 0);
    for (int index = 0; index < state->cgroups; index++) {
        show(state->cgroup[index].mount);
        show(state->cgroup[index].path);
        for (const char *const *name = state->cgroup[index].controller; *name; name++)
            show(*name);
    }
    for (int index = 0; index < state->annotations; index++) {
        show(state->annotation[index][0]);
        show(state->annotation[index][1]);
    }
    for (int index = 0; index < state->pythons; index++)
        show(state->python[index]);
    show_number(state->resctrl);
    show(state->unit);
}

int main(int argc, char **argv) {
    static char text[STATE_BYTES + 2];
    static struct state state;
    for (int index = 1; index < argc; index++) {
        FILE *file = fopen(argv[index], "rb");
        size_t length = file ? fread(text, 1, STATE_BYTES + 1, file) : 0;
        if (file)
            fclose(file);
        LLVMFuzzerTestOneInput((const uint8_t *)text, length);
        if (length > STATE_BYTES || parse_state(text, length, &state) < 0)
            printf("-\n");
        else
            show_all(&state);
        printf(".\n");
    }
    return 0;
}
#endif
