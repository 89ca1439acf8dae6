/* Numbers of the image's JSON (docs/image.md). Only what that file has: no escapes are undone, no errors repaired. */
#include "executor.h"

#include <stdlib.h>
#include <string.h>

static const char *blank(const char *at)
{
    while (*at && strchr(" \t\r\n", *at))
        at++;
    return at;
}

static const char *after_string(const char *at)
{
    for (at++; *at && *at != '"'; at++)
        if (*at == '\\' && at[1])
            at++;
    return *at ? at + 1 : at;
}

static const char *after_value(const char *at)
{
    at = blank(at);
    if (*at == '"')
        return after_string(at);
    if (*at == '{' || *at == '[') {
        unsigned depth = 0;
        do {
            if (*at == '"') {
                at = after_string(at);
                continue;
            }
            depth += *at == '{' || *at == '[';
            depth -= *at == '}' || *at == ']';
            at++;
        } while (*at && depth);
        return at;
    }
    while (*at && !strchr(",}] \t\r\n", *at))
        at++;
    return at;
}

/* The value of a member of the object at `at`, or NULL. */
static const char *member(const char *at, const char *name, size_t length)
{
    at = blank(at);
    if (*at != '{')
        return NULL;
    at = blank(at + 1);
    while (*at == '"') {
        const char *end = after_string(at);
        bool found = (size_t)(end - at) == length + 2 && !strncmp(at + 1, name, length);
        at = blank(blank(end) + 1);
        if (found)
            return at;
        at = blank(after_value(at));
        if (*at == ',')
            at = blank(at + 1);
    }
    return NULL;
}

static const char *found(const char *text, const char *path)
{
    const char *at = text;
    for (const char *name = path; at && *name;) {
        size_t length = strcspn(name, ".");
        at = member(at, name, length);
        name += length + (name[length] == '.');
    }
    return at;
}

uint64_t json_number(const char *text, const char *path)
{
    const char *at = found(text, path);
    if (!at || *at < '0' || *at > '9')
        fail("the JSON has no number %s", path);
    return strtoull(at, NULL, 10);
}

bool json_lists(const char *text, const char *path, const char *wanted)
{
    const char *at = found(text, path);
    size_t length = strlen(wanted);
    if (!at || *at != '[')
        return false;
    for (at = blank(at + 1); *at == '"'; at = blank(at)) {
        const char *end = after_string(at);
        if ((size_t)(end - at) == length + 2 && !strncmp(at + 1, wanted, length))
            return true;
        at = blank(end);
        at += *at == ',';
    }
    return false;
}
