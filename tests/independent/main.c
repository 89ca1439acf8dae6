/* executor IMAGE.json IMAGE.bin AFTER.bin TRACE [LENGTH]
 *
 * Runs the program of an image that `sta-hw compile` wrote, writes the image as it is afterwards, and a trace: for each
 * instruction words of 32 bits, little-endian: its number, its opcode, how many stores; and each store's address, its
 * bytes, and the bytes. Prints the saturation counters; or, for a program that hardware stops, error and instruction.
 */
#include "executor.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct trace {
    uint8_t *data;
    size_t bytes, space;
    size_t stores_at;
};

void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

void *room(size_t count, size_t size)
{
    void *found = calloc(count ? count : 1, size);
    if (!found)
        fail("no memory for %lu times %lu bytes", (unsigned long)count, (unsigned long)size);
    return found;
}

static uint8_t *read_file(const char *name, size_t *bytes)
{
    FILE *file = fopen(name, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        fail("%s cannot be read", name);
    long end = ftell(file);
    rewind(file);
    uint8_t *data = room((size_t)end + 1, 1);
    if (fread(data, 1, (size_t)end, file) != (size_t)end)
        fail("%s cannot be read", name);
    fclose(file);
    *bytes = (size_t)end;
    return data;
}

static void write_file(const char *name, const uint8_t *data, size_t bytes)
{
    FILE *file = fopen(name, "wb");
    if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file))
        fail("%s cannot be written", name);
}

static void append(struct trace *trace, const void *data, size_t bytes)
{
    if (trace->bytes + bytes > trace->space) {
        trace->space = 2 * trace->space + bytes + 4096;
        trace->data = realloc(trace->data, trace->space);
        if (!trace->data)
            fail("no memory for the trace");
    }
    memcpy(trace->data + trace->bytes, data, bytes);
    trace->bytes += bytes;
}

static void append_word(struct trace *trace, uint32_t word)
{
    uint8_t bytes[4] = {(uint8_t)word, (uint8_t)(word >> 8), (uint8_t)(word >> 16), (uint8_t)(word >> 24)};
    append(trace, bytes, 4);
}

static void stored(void *context, uint32_t address, const uint8_t *data, size_t bytes)
{
    struct trace *trace = context;
    uint8_t *count = trace->data + trace->stores_at;
    for (unsigned i = 0; i < 4 && !++count[i]; i++)
        ;
    append_word(trace, address);
    append_word(trace, (uint32_t)bytes);
    append(trace, data, bytes);
}

static struct hardware described(const char *json)
{
    uint64_t shape = json_number(json, "hardware.shape"), memories = json_number(json, "hardware.memories");
    struct hardware h = {0};
    h.rows = shape & 511;
    h.groups = shape >> 9 & 255;
    h.window = shape >> 17 & 63;
    h.bus = shape >> 23 & 127;
    h.drain_lanes = (uint32_t)json_number(json, "hardware.configuration.drain_lanes");
    h.weight_words = (uint32_t)1 << (memories & 31);
    h.position_words = (uint32_t)1 << (memories >> 5 & 31);
    h.parameter_words = (uint32_t)1 << (memories >> 10 & 31);
    h.columns = (uint32_t)1 << (memories >> 15 & 31);
    h.has_index = memories >> 20 & 1;
    h.has_bitmap = memories >> 21 & 1;
    h.has_digits = json_lists(json, "hardware.configuration.features", "digits");
    h.has_blocks = json_lists(json, "hardware.configuration.features", "blocks4");
    h.window_words = (uint32_t)json_number(json, "hardware.configuration.window_words");
    h.hash = json_number(json, "hardware.hash_low") | json_number(json, "hardware.hash_high") << 32;
    return h;
}

int main(int count, char **arguments)
{
    static const char *const NAMES[] = {"NONE", "HEADER", "HARDWARE", "OPCODE", "ADDRESS", "READ", "WRITE", "ENGINE"};
    if (count != 5 && count != 6)
        fail("usage: %s IMAGE.json IMAGE.bin AFTER.bin TRACE [LENGTH]", arguments[0]);
    size_t json_bytes, size;
    char *json = (char *)read_file(arguments[1], &json_bytes);
    uint8_t *image = read_file(arguments[2], &size);
    uint32_t length = count == 6 ? (uint32_t)strtoul(arguments[5], NULL, 10) : 0;
    struct hardware hardware = described(json);
    struct trace trace = {room(1, 1), 0, 1, 0};
    struct fetch fetch;
    struct instruction instruction = {0};
    struct machine *machine = machine_new(&hardware, image, size, length, stored, &trace);
    enum error error = fetch_begin(&fetch, &hardware, image, size, json_number(json, "program.offset"), length);
    while (!error && !(error = fetch_next(&fetch, &instruction)) && instruction.opcode != HALT) {
        append_word(&trace, instruction.number);
        append_word(&trace, instruction.opcode);
        trace.stores_at = trace.bytes;
        append_word(&trace, 0);
        error = machine_run(machine, &instruction);
    }
    write_file(arguments[3], image, size);
    write_file(arguments[4], trace.data, trace.bytes);
    if (error) {
        printf("%s at instruction %u\n", NAMES[error], (unsigned)(instruction.number & 0xFFFF));
        return 1;
    }
    const uint64_t *saturated = machine_saturated(machine);
    printf("saturated_scores %llu\nsaturated_sums %llu\nsaturated_norms %llu\nsaturated_results %llu\n",
           (unsigned long long)saturated[0], (unsigned long long)saturated[1], (unsigned long long)saturated[2],
           (unsigned long long)saturated[3]);
    return 0;
}
