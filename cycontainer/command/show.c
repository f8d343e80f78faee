/* The verbs `state` and `list`: the counterparts of cli/state.py, cli/list.py and cli/summary.py. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command.h"

enum { COLUMNS = sizeof(TITLES) / sizeof(TITLES[0]), MOST_LISTED = 100000 };

/* What is said of one container beside what its state has. */
struct summary {
    struct state state;
    long pid;
    const char *status, *owner;
};

struct row {
    char *cell[COLUMNS];
};

/* --- one container */

static const char *user_name(uid_t uid) {
    static char name[256];
    static long known = -1; /* who made one container has often made others */
    struct passwd *found;
    if (uid == 0)
        return ROOT_USER;
    if (known == (long)uid)
        return name;
    errno = 0;
    found = getpwuid(uid);
    if (!found && errno != 0 && errno != ENOENT)
        hand_on();
    if (!found)
        snprintf(name, sizeof(name), NAMELESS_USER, uid);
    else if ((size_t)snprintf(name, sizeof(name), "%s", found->pw_name) >= sizeof(name))
        hand_on();
    known = (long)uid;
    return name;
}

/* False when there is none, or it is just being made or removed. */
static bool summarize(const char *root, const char *id, struct summary *summary) {
    int directory = open_container(root, id);
    bool found = directory >= 0 && load_state(directory, id, &summary->state);
    if (found) {
        enum status status = status_of(directory, &summary->state);
        summary->pid = status == STOPPED ? 0 : summary->state.pid;
        summary->status = STATUSES[status];
        summary->owner = user_name((uid_t)summary->state.owner);
    }
    if (directory >= 0)
        close(directory);
    return found;
}

/* --- as JSON */

static void add_field(struct text *text, const struct summary *summary, enum field field) {
    const struct state *state = &summary->state;
    switch (field) {
#define SHOW(key, FIELD)                                                                                               \
    case FIELD:                                                                                                        \
        add_quoted(text, state->key);                                                                                  \
        break;
        SHOWN_TEXTS(SHOW)
    case FIELD_STATUS:
        add_quoted(text, summary->status);
        break;
    case FIELD_OWNER:
        add_quoted(text, summary->owner);
        break;
    case FIELD_PID:
        add_number(text, summary->pid);
        break;
    default:
        break;
    }
}

/* The pieces of a document; those of its annotations tell how each further one is joined to the one before. */
static void add_document(struct text *text, const struct summary *summary, const struct piece *pieces) {
    const struct state *state = &summary->state;
    for (const struct piece *piece = pieces;; piece++) {
        if (piece->field != FIELD_NEXT_KEY && piece->field != FIELD_NEXT_VALUE)
            add(text, piece->before);
        if (piece->field == FIELD_END)
            return;
        if (piece->field == FIELD_KEY) {
            add_quoted(text, state->annotation[0][0]);
        } else if (piece->field == FIELD_VALUE) {
            add_quoted(text, state->annotation[0][1]);
            for (int index = 1; index < state->annotations; index++) {
                add(text, piece[1].before);
                add_quoted(text, state->annotation[index][0]);
                add(text, piece[2].before);
                add_quoted(text, state->annotation[index][1]);
            }
        } else {
            add_field(text, summary, piece->field);
        }
    }
}

int answer_state(const struct call *call) {
    static struct summary summary;
    struct text text = {0};
    if (!summarize(call->root, call->operand[0], &summary))
        return fail(NOT_FOUND, call->operand[0]);
    add_document(&text, &summary, summary.state.annotations ? ANNOTATED_IN_LINES : PLAIN_IN_LINES);
    add(&text, "\n");
    return print(text.start, text.length);
}

/* --- all of them */

static int compare(const void *one, const void *other) {
    return strcmp(*(char *const *)one, *(char *const *)other);
}

/* The ids below the root directory, in order; how many. */
static int find_ids(const struct call *call, char ***found) {
    DIR *directory = opendir(call->root);
    struct dirent *entry;
    int count = 0, room = 0;
    *found = NULL;
    if (!directory && (errno != ENOENT || call->root_given))
        hand_on();
    while (directory && (errno = 0, entry = readdir(directory))) {
        if (!is_id(entry->d_name))
            continue;
        if (count == room) {
            room = 2 * room + 64;
            *found = reallocarray(*found, (size_t)room, sizeof(char *));
        }
        if (count == MOST_LISTED || !*found || !((*found)[count++] = strdup(entry->d_name)))
            hand_on();
    }
    if (directory && errno)
        hand_on();
    if (directory)
        closedir(directory);
    qsort(*found, (size_t)count, sizeof(char *), compare);
    return count;
}

static struct row row_of(const struct summary *summary) {
    const struct state *state = &summary->state;
    char pid[24];
    snprintf(pid, sizeof(pid), "%ld", summary->pid);
    const char *cells[] = {state->id, pid, summary->status, state->bundle, state->created, summary->owner};
    _Static_assert(sizeof(cells) / sizeof(cells[0]) == COLUMNS, "a cell for each title");
    struct row row;
    for (int column = 0; column < COLUMNS; column++) {
        row.cell[column] = strdup(cells[column]);
        if (!row.cell[column] || !is_plain(cells[column]))
            hand_on();
    }
    return row;
}

static void add_table(struct text *text, const struct row *rows, int count) {
    size_t widths[COLUMNS], end;
    for (int column = 0; column < COLUMNS; column++) {
        widths[column] = LEAST_WIDTH;
        for (int index = 0; index < count; index++)
            if (strlen(rows[index].cell[column]) + GAP > widths[column])
                widths[column] = strlen(rows[index].cell[column]) + GAP;
    }
    for (int index = 0; index < count; index++) {
        for (int column = 0; column < COLUMNS; column++) {
            add(text, rows[index].cell[column]);
            for (size_t at = strlen(rows[index].cell[column]); at < widths[column]; at++)
                add(text, " ");
        }
        for (end = text->length; end > 0 && text->start[end - 1] == ' '; end--)
            ;
        text->length = end;
        add(text, "\n");
    }
}

static int show_ids(char **ids, int count) {
    struct text text = {0};
    for (int index = 0; index < count; index++) {
        add(&text, ids[index]);
        add(&text, "\n");
    }
    return print(text.start, text.length);
}

int answer_list(const struct call *call) {
    static struct summary summary;
    const char *form = call->value[OPTION_FORMAT];
    bool json = form && strcmp(form, LIST_JSON) == 0;
    struct text text = {0};
    struct row *rows;
    char **ids;
    int count, shown = 1;
    if (form && !json && strcmp(form, LIST_TABLE) != 0)
        hand_on();
    count = find_ids(call, &ids);
    if (call->value[OPTION_QUIET])
        return show_ids(ids, count);
    rows = calloc((size_t)count + 1, sizeof(struct row));
    if (!rows)
        hand_on();
    for (int column = 0; column < COLUMNS; column++)
        rows[0].cell[column] = (char *)TITLES[column];
    add(&text, json ? "[" : "");
    for (int index = 0; index < count; index++) {
        if (!summarize(call->root, ids[index], &summary))
            continue; /* deleted meanwhile, or just being made */
        if (json) {
            add(&text, shown > 1 ? "," : "");
            add_document(&text, &summary, summary.state.annotations ? ANNOTATED_IN_ONE_LINE : PLAIN_IN_ONE_LINE);
            shown++;
        } else {
            rows[shown++] = row_of(&summary);
        }
    }
    if (json)
        add(&text, "]\n");
    else
        add_table(&text, rows, shown);
    return print(text.start, text.length);
}
