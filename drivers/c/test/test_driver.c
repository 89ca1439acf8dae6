/* Tests of the driver: its core on a bus of scripted answers, on memory, under Linux's calls with and without errors,
 * and on the simulated accelerator, every error of which it makes happen.
 *
 *     test_driver LIBRARY IMAGE INPUTS TOKENS POOLED OUTPUTS FOLDER
 *
 * LIBRARY is the simulated accelerator; IMAGE the image, of a run of two texts, the first the longer one; INPUTS two
 * inputs as `sta-hw input` writes them; TOKENS the first's values, text after text, token after token; POOLED and
 * OUTPUTS what the reference gives for it; FOLDER is for files.
 */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sta_hw.h"
#include "sta_hw_file.h"
#include "sta_hw_linux.h"
#include "sta_hw_mapped.h"
#include "sta_hw_verilated.h"

#include MODEL_HEADER

#define JOIN(a, b) a##b
#define OF(model, name) JOIN(model, name)
enum {
    TOKENS = OF(MODEL, _TEXT_TOKENS),
    SECOND = 3, /* tokens of the second text */
    WIDTH = OF(MODEL, _INPUT_CHANNELS),
    CHANNELS = OF(MODEL, _POOLED_CHANNELS),
    INPUT_BYTES = OF(MODEL, _INPUT_BYTES),
    IMAGE_BYTES = OF(MODEL, _IMAGE_BYTES),
    BURST = OF(MODEL, _BURST_BYTES),
    FIRST_INPUT = STA_HW_INPUTS_HEADER_BYTES + 4, /* behind its length */
    INPUTS_BYTES = STA_HW_INPUTS_HEADER_BYTES + 2 * (4 + INPUT_BYTES)
};
static const struct sta_hw_image IMAGE = OF(MODEL, _IMAGE);
#define ADDRESS 0x80000000u

int __real_close(int file);

static long checks;
#define CHECK(condition) \
    do { \
        checks++; \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)
#define GIVES(call, code) \
    do { \
        const enum sta_hw_code found = (call); \
        checks++; \
        if (found != (code)) { \
            fprintf(stderr, "%s:%d: %s gives %d (%s), and not %s\n", __FILE__, __LINE__, #call, (int)found, \
                    sta_hw_sentence(found), #code); \
            exit(1); \
        } \
    } while (0)

static uint8_t image[IMAGE_BYTES], memory[IMAGE_BYTES + 64], inputs[INPUTS_BYTES];
static int16_t tokens[(TOKENS + SECOND) * WIDTH], pooled[CHANNELS], outputs[TOKENS * CHANNELS];
static int16_t expected_pooled[2 * CHANNELS], expected_outputs[(TOKENS + SECOND) * CHANNELS];

static void whole_file(const char *path, void *bytes, size_t count) {
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    CHECK(fread(bytes, 1, count, file) == count);
    CHECK(fgetc(file) == EOF);
    fclose(file);
}

static void write_file(const char *path, const void *bytes, size_t count) {
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL);
    CHECK(fwrite(bytes, 1, count, file) == count);
    CHECK(fclose(file) == 0);
}

/* The number that the next file to be opened gets: the same as before, if all were closed. */
static int next_file(void) {
    const int file = dup(0);
    CHECK(file > 0 && !__real_close(file));
    return file;
}

static void says(const struct sta_hw *dev, enum sta_hw_code code, const char *words) {
    char sentence[256];
    const size_t length = sta_hw_explain(dev, code, sentence, sizeof sentence);
    CHECK(length == strlen(sentence));
    if (!strstr(sentence, words)) {
        fprintf(stderr, "\"%s\" does not say \"%s\"\n", sentence, words);
        exit(1);
    }
}

/* -- a bus of scripted answers ------------------------------------------------------------------ */

struct fake {
    uint32_t registers[0x400 / 4];
    int calls, fail_at, answer; /* the call, from 0, that returns `answer`; -1 for none */
    uint32_t length;            /* what the register holds at each start */
    int busy_looks;             /* so often the status is still busy after a start or reset */
    int refuse;                 /* a start does nothing but set `refused` */
    int waits, timed_out_at;
    int pauses;
    int counting_down;
};
static struct fake fake;

static int fake_fails(void) { return fake.calls++ == fake.fail_at ? fake.answer : 0; }

static int fake_read(void *context, uint32_t offset, uint32_t *value) {
    CHECK(context == &fake);
    if (offset == STA_HW_REG_STATUS && fake.counting_down) {
        if (fake.counting_down-- > 1) {
            *value = STA_HW_STATUS_BUSY_MASK;
            return fake_fails();
        }
        fake.counting_down = 0;
    }
    *value = fake.registers[offset / 4];
    return fake_fails();
}

static int fake_write(void *context, uint32_t offset, uint32_t value) {
    CHECK(context == &fake);
    if (offset == STA_HW_REG_LENGTH)
        fake.registers[offset / 4] = value;
    if (offset == STA_HW_REG_CONTROL && (value & STA_HW_CONTROL_START_MASK))
        CHECK(fake.registers[STA_HW_REG_LENGTH / 4] == fake.length);
    if (offset == STA_HW_REG_CONTROL && (value & STA_HW_CONTROL_START_MASK)) {
        fake.registers[STA_HW_REG_STATUS / 4] = fake.refuse ? STA_HW_STATUS_REFUSED_MASK : STA_HW_STATUS_DONE_MASK;
        fake.counting_down = fake.refuse ? 0 : fake.busy_looks;
    }
    if (offset == STA_HW_REG_CONTROL && (value & STA_HW_CONTROL_RESET_MASK)) {
        fake.registers[STA_HW_REG_STATUS / 4] = 0;
        fake.counting_down = fake.busy_looks;
    }
    return fake_fails();
}

static int fake_put(void *context, uint32_t offset, const void *bytes, uint32_t count) {
    CHECK(context == &fake && offset + count <= IMAGE_BYTES);
    memcpy(memory + offset, bytes, count);
    return fake_fails();
}

static int fake_get(void *context, uint32_t offset, void *bytes, uint32_t count) {
    CHECK(context == &fake && offset + count <= IMAGE_BYTES);
    memcpy(bytes, memory + offset, count);
    return fake_fails();
}

static int fake_wait(void *context, uint32_t milliseconds) {
    CHECK(context == &fake && milliseconds == 7);
    if (fake.waits++ == fake.timed_out_at)
        return STA_HW_TIMED_OUT;
    return fake_fails();
}

static void fake_pause(void *context) {
    CHECK(context == &fake);
    fake.pauses++;
}

static struct sta_hw_bus fake_bus(void) {
    struct sta_hw_bus bus = {0};
    memset(&fake, 0, sizeof fake);
    fake.fail_at = fake.timed_out_at = -1;
    fake.answer = -5;
    fake.registers[STA_HW_REG_ID / 4] = OF(MODEL, _ID);
    fake.registers[STA_HW_REG_VERSION / 4] = OF(MODEL, _VERSION);
    fake.registers[STA_HW_REG_HASH_LOW / 4] = OF(MODEL, _HASH_LOW);
    fake.registers[STA_HW_REG_HASH_HIGH / 4] = OF(MODEL, _HASH_HIGH);
    fake.registers[STA_HW_REG_SHAPE / 4] = OF(MODEL, _SHAPE);
    bus.context = &fake;
    bus.memory_address = ADDRESS;
    bus.memory_bytes = IMAGE_BYTES;
    bus.read = fake_read;
    bus.write = fake_write;
    bus.put = fake_put;
    bus.get = fake_get;
    bus.wait = fake_wait;
    bus.pause = fake_pause;
    return bus;
}

/* A call fails as often as it uses the bus, each time by the bus's own number, and then succeeds. */
#define FAILS_EVERYWHERE(prepare, call) \
    do { \
        int turn, given = -5; \
        for (turn = 0;; turn++) { \
            enum sta_hw_code got; \
            prepare; \
            fake.calls = 0; \
            fake.fail_at = turn; \
            fake.answer = given = given == -5 ? 7 : -5; \
            got = (call); \
            fake.fail_at = -1; \
            fake.counting_down = 0; \
            if (got == STA_HW_OK) \
                break; \
            CHECK(got == STA_HW_BUS && dev.bus_error == given); \
            says(&dev, got, given < 0 ? "returned -5." : "returned 7."); \
        } \
        CHECK(turn > 0 && turn == fake.calls); \
    } while (0)

static size_t read_image(void *context, void *bytes, size_t count) {
    size_t *at = context;
    if (count > IMAGE_BYTES - *at)
        count = IMAGE_BYTES - *at;
    memcpy(bytes, image + *at, count);
    *at += count;
    return count;
}

static size_t read_too_much(void *context, void *bytes, size_t count) {
    CHECK(bytes && count);
    return *(const size_t *)context;
}

static void test_sentences(void) {
    struct sta_hw dev;
    struct sta_hw_bus bus = fake_bus();
    char text[8], all[256];
    int code, other;
    GIVES(sta_hw_open(&dev, &bus, 0), STA_HW_OK);
    for (code = 0; code < STA_HW_CODE_COUNT; code++) {
        const char *sentence = sta_hw_sentence((enum sta_hw_code)code);
        for (other = 0; other < code; other++)
            CHECK(strcmp(sentence, sta_hw_sentence((enum sta_hw_code)other)));
        CHECK(sta_hw_explain(&dev, (enum sta_hw_code)code, all, sizeof all) == strlen(all));
        CHECK(!strncmp(all, sentence, strlen(sentence)) && all[strlen(all) - 1] == '.');
        CHECK(sta_hw_explain(&dev, (enum sta_hw_code)code, text, sizeof text) == strlen(all));
        CHECK(strlen(text) == 7 && !strncmp(text, all, 7));
        CHECK(sta_hw_explain(&dev, (enum sta_hw_code)code, NULL, 0) == strlen(all));
    }
    CHECK(!strcmp(sta_hw_sentence((enum sta_hw_code)999), "an unknown code"));
    for (code = 0; code < STA_HW_FAULT_END; code++) {
        dev.fault = (enum sta_hw_fault)code;
        dev.instruction = 4294967295u;
        says(&dev, STA_HW_FAILED, "at instruction 4294967295: ");
        says(&dev, STA_HW_FAILED, sta_hw_fault_sentence((enum sta_hw_fault)code));
    }
    says(&dev, STA_HW_FAILED, ": TIMEOUT, nothing moved");
    dev.fault = (enum sta_hw_fault)200;
    says(&dev, STA_HW_FAILED, "unknown, an error that this driver does not know");
    for (code = 0; code < STA_HW_COUNTER_COUNT; code++)
        CHECK(strlen(sta_hw_counter_sentence((enum sta_hw_counter)code)) > 10);
    CHECK(!strcmp(sta_hw_counter_sentence(STA_HW_COUNTER_COUNT), "an unknown counter"));
    dev.expected = 0;
    dev.found = 0xFEDCBA9876543210u;
    says(&dev, STA_HW_OTHER_HARDWARE, ": expected 0x0, found 0xfedcba9876543210.");
    dev.found = 1;
    says(&dev, STA_HW_WRONG_SIZE, ": expected 0, found 1.");
    /* The numbers of zlib. */
    CHECK(sta_hw_crc32(0, "123456789", 9) == 0xCBF43926u);
    CHECK(sta_hw_crc32(7, NULL, 9) == 7);
    CHECK(sta_hw_explain(&dev, STA_HW_BUSY, NULL, 9) == strlen(sta_hw_sentence(STA_HW_BUSY)) + 1);
    CHECK(sta_hw_crc32(sta_hw_crc32(0, "1234", 4), "56789", 5) == 0xCBF43926u && sta_hw_crc32(0, "", 0) == 0);
}

static void test_opening(void) {
    struct sta_hw_bus bus = fake_bus(), other;
    struct sta_hw dev;
    static struct sta_hw never; /* zeros, as a bare-metal program's are before sta_hw_open() */
    static uint32_t counters[STA_HW_COUNTER_COUNT];
    char text[200];
    size_t at = 0;
    GIVES(sta_hw_load(&never, &IMAGE, image, IMAGE_BYTES), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_load_from(&never, &IMAGE, read_image, &at, text, sizeof text), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_check_memory(&never), STA_HW_NOT_LOADED);
    GIVES(sta_hw_start(&never, 0), STA_HW_NOT_LOADED);
    GIVES(sta_hw_poll(&never, 1), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_wait(&never, 1), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_reset(&never, 1), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_counters(&never, counters), STA_HW_BAD_ARGUMENT);
    CHECK(sta_hw_explain(NULL, STA_HW_FAILED, text, sizeof text) == strlen(text) && strstr(text, "stopped the program."));
    GIVES(sta_hw_open(NULL, &bus, 0), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_open(&dev, NULL, 0), STA_HW_BAD_ARGUMENT);
    other = bus, other.read = NULL;
    GIVES(sta_hw_open(&dev, &other, 0), STA_HW_BAD_ARGUMENT);
    other = bus, other.write = NULL;
    GIVES(sta_hw_open(&dev, &other, 0), STA_HW_BAD_ARGUMENT);
    other = bus, other.put = NULL;
    GIVES(sta_hw_open(&dev, &other, 0), STA_HW_BAD_ARGUMENT);
    other = bus, other.get = NULL;
    GIVES(sta_hw_open(&dev, &other, 0), STA_HW_BAD_ARGUMENT);
    FAILS_EVERYWHERE((void)0, sta_hw_open(&dev, &bus, IMAGE.hash));
    CHECK(dev.rows == OF(MODEL, _ROWS) && dev.groups == OF(MODEL, _GROUPS) && dev.window == OF(MODEL, _WINDOW));
    CHECK(dev.bus_bytes == OF(MODEL, _BUS_BYTES) && dev.hash == OF(MODEL, _HASH) && !dev.image.bytes);
    GIVES(sta_hw_open(&dev, &dev.bus, IMAGE.hash), STA_HW_OK); /* once more, by its own bus */
    CHECK(dev.bus.read == bus.read && dev.bus.context == bus.context);
    GIVES(sta_hw_open(&dev, &bus, IMAGE.hash ^ 1), STA_HW_OTHER_HARDWARE);
    GIVES(sta_hw_open(&dev, &bus, IMAGE.hash ^ 1ull << 63), STA_HW_OTHER_HARDWARE);
    fake.registers[STA_HW_REG_VERSION / 4]++;
    GIVES(sta_hw_open(&dev, &bus, 0), STA_HW_OTHER_VERSION);
    fake.registers[STA_HW_REG_ID / 4] = 0xFFFFFFFFu;
    GIVES(sta_hw_open(&dev, &bus, 0), STA_HW_NO_ACCELERATOR);
    says(&dev, STA_HW_NO_ACCELERATOR, "expected 0x48415453, found 0xffffffff.");
}

/* A struct of the caller's that says what is not in the image: nothing is written or read by it. */
static void test_malformed(struct sta_hw *dev) {
    const struct sta_hw_text places[] = {{0, 0}, {OF(MODEL, _INPUT_LINES), 1}, {0, OF(MODEL, _INPUT_LINES) + 1},
                                         {1, 0xFFFFFFFFu}};
    static const struct sta_hw_text whole = {0, 1}, both[] = {{0, 1}, {1, 1}};
    static const uint32_t depths[] = {0, 2, 0x80000000u, 0x55555555u, 0xFFFFFFFFu};
    struct sta_hw_text twice[2];
    struct sta_hw_image wrong;
    struct sta_hw_tensor *tensors[] = {&wrong.input, &wrong.pooled, &wrong.outputs};
    size_t i;
#define MALFORMED(change) \
    wrong = IMAGE; \
    change; \
    GIVES(sta_hw_load(dev, &wrong, image, IMAGE_BYTES), STA_HW_BAD_ARGUMENT)
    for (i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        MALFORMED(tensors[i]->offset = IMAGE_BYTES - 1);
        MALFORMED(tensors[i]->offset = 0xFFFFFFFEu);
        MALFORMED(tensors[i]->lines += tensors[i]->rows * IMAGE_BYTES);
        MALFORMED(tensors[i]->lines++);
        MALFORMED(tensors[i]->lines = 0);
        MALFORMED(tensors[i]->channels = IMAGE_BYTES);
        MALFORMED(tensors[i]->channels = 0x80000000u);
        MALFORMED(tensors[i]->rows = 0);
    }
    MALFORMED(wrong.input.channels = 0);
    MALFORMED(wrong.program = IMAGE_BYTES);
    MALFORMED(wrong.mean.bytes = IMAGE_BYTES; wrong.mean.offset = 1; wrong.mean.depth = 1);
    MALFORMED(wrong.mean.bytes = 1; wrong.mean.offset = 0; wrong.mean.depth = 0);
    wrong = IMAGE, wrong.texts = &whole, wrong.text_count = 1, wrong.pooled.channels = wrong.outputs.channels = 0;
    wrong.mean.offset = 0, wrong.mean.depth = 3, wrong.mean.bytes = 3 * dev->groups * wrong.input.rows;
    GIVES(sta_hw_load(dev, &wrong, image, IMAGE_BYTES), STA_HW_OK);
    for (i = 0; i < sizeof depths / sizeof *depths; i++) { /* none of them is whole blocks; 2^31 times 2 groups wraps */
        wrong.mean.depth = depths[i];
        GIVES(sta_hw_load(dev, &wrong, image, IMAGE_BYTES), STA_HW_BAD_ARGUMENT);
    }
    wrong.mean.depth = 3;
    wrong.text_count = 2, wrong.texts = both;
    GIVES(sta_hw_load(dev, &wrong, image, IMAGE_BYTES), STA_HW_BAD_ARGUMENT);
    /* 2 x (2^32 - 1) x (2^31 + 1) is less than 2^32 in 64 bits. */
    MALFORMED(wrong.burst_bytes = 1; wrong.bytes = wrong.input.lines = 0xFFFFFFFFu; wrong.input.rows = 1;
              wrong.input.channels = 0x80000001u; dev->bus.memory_bytes = 0xFFFFFFFFu; dev->bus.memory_address = 0);
    dev->bus.memory_bytes = IMAGE_BYTES, dev->bus.memory_address = ADDRESS;
    MALFORMED(wrong.text_count = 0);
    MALFORMED(wrong.texts = NULL);
    for (i = 0; i < sizeof places / sizeof *places; i++) {
        MALFORMED(wrong.texts = &places[i]; wrong.text_count = 1);
    }
    twice[0] = twice[1] = IMAGE.texts[0];
    MALFORMED(wrong.texts = twice; wrong.text_count = 2);
#undef MALFORMED
}

static void test_loading(const char *folder) {
    struct sta_hw_bus bus = fake_bus();
    struct sta_hw_image wrong;
    struct sta_hw dev;
    uint8_t buffer[100], byte;
    char path[512];
    size_t at;
    int free_file;
    GIVES(sta_hw_open(&dev, &bus, 0), STA_HW_OK);
    GIVES(sta_hw_load(NULL, &IMAGE, image, IMAGE_BYTES), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_load(&dev, NULL, image, IMAGE_BYTES), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_load(&dev, &IMAGE, NULL, IMAGE_BYTES), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_check_memory(NULL), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_check_memory(&dev), STA_HW_NOT_LOADED);
    GIVES(sta_hw_put_text(&dev, 0, tokens, TOKENS * WIDTH), STA_HW_NOT_LOADED);
    GIVES(sta_hw_put_input(&dev, inputs, INPUT_BYTES), STA_HW_NOT_LOADED);
    GIVES(sta_hw_start(&dev, 0), STA_HW_NOT_LOADED);
    GIVES(sta_hw_get_pooled(&dev, 0, pooled, CHANNELS), STA_HW_NOT_LOADED);
    GIVES(sta_hw_get_outputs(&dev, 0, outputs, TOKENS * CHANNELS), STA_HW_NOT_LOADED);
    FAILS_EVERYWHERE(memset(memory, 0xAA, sizeof memory), sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES));
    CHECK(!memcmp(memory, image, IMAGE_BYTES) && memory[IMAGE_BYTES] == 0xAA);
    FAILS_EVERYWHERE((void)0, sta_hw_check_memory(&dev));
    memory[IMAGE_BYTES - 1] ^= 1;
    GIVES(sta_hw_check_memory(&dev), STA_HW_DAMAGED);
    GIVES(sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES - 1), STA_HW_WRONG_SIZE);
    CHECK(!dev.image.bytes); /* what a failed loading leaves cannot be started */
    for (at = 0; at < IMAGE_BYTES; at += 97) {
        image[at] ^= 4;
        GIVES(sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES), STA_HW_DAMAGED);
        image[at] ^= 4;
    }
    wrong = IMAGE, wrong.version++;
    GIVES(sta_hw_load(&dev, &wrong, image, IMAGE_BYTES), STA_HW_OTHER_VERSION);
    wrong = IMAGE, wrong.hash++;
    GIVES(sta_hw_load(&dev, &wrong, image, IMAGE_BYTES), STA_HW_OTHER_HARDWARE);
    wrong = IMAGE, wrong.bytes = 0;
    GIVES(sta_hw_load(&dev, &wrong, image, 0), STA_HW_BAD_ARGUMENT);
    wrong = IMAGE, wrong.bytes--;
    GIVES(sta_hw_load(&dev, &wrong, image, IMAGE_BYTES), STA_HW_BAD_ARGUMENT);
    wrong = IMAGE, wrong.burst_bytes = 0;
    GIVES(sta_hw_load(&dev, &wrong, image, IMAGE_BYTES), STA_HW_BAD_ARGUMENT);
    wrong = IMAGE, wrong.burst_bytes--;
    GIVES(sta_hw_load(&dev, &wrong, image, IMAGE_BYTES), STA_HW_BAD_ARGUMENT);
    test_malformed(&dev);
    dev.bus.memory_bytes = IMAGE_BYTES - 1;
    GIVES(sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES), STA_HW_NO_ROOM);
    dev.bus.memory_bytes = IMAGE_BYTES;
    dev.bus.memory_address = ADDRESS + BURST / 2;
    GIVES(sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES), STA_HW_MISPLACED);
    dev.bus.memory_address = 0x100000000u - IMAGE_BYTES + BURST;
    GIVES(sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES), STA_HW_MISPLACED);
    dev.bus.memory_address = 0x100000000u;
    GIVES(sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES), STA_HW_MISPLACED);
    dev.bus.memory_address = 0u - (uint64_t)BURST; /* its end would be a small number again */
    GIVES(sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES), STA_HW_MISPLACED);
    CHECK(dev.expected == 0x100000000u && dev.found == dev.bus.memory_address);
    dev.bus.memory_address = 0x100000000u - IMAGE_BYTES; /* to the very end */
    GIVES(sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES), STA_HW_OK);
    dev.bus.memory_address = ADDRESS;
    fake.registers[STA_HW_REG_STATUS / 4] = STA_HW_STATUS_BUSY_MASK;
    GIVES(sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES), STA_HW_BUSY);
    CHECK(dev.image.bytes); /* nothing was touched */
    fake.registers[STA_HW_REG_STATUS / 4] = 0;
    GIVES(sta_hw_load(&dev, &dev.image, image, IMAGE_BYTES), STA_HW_OK); /* anew */
    CHECK(dev.image.bytes == IMAGE_BYTES);
    /* By way of a buffer. */
    at = 0;
    GIVES(sta_hw_load_from(NULL, &IMAGE, read_image, &at, buffer, sizeof buffer), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_load_from(&dev, NULL, read_image, &at, buffer, sizeof buffer), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_load_from(&dev, &IMAGE, NULL, &at, buffer, sizeof buffer), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_load_from(&dev, &IMAGE, read_image, &at, NULL, sizeof buffer), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_load_from(&dev, &IMAGE, read_image, &at, buffer, 0), STA_HW_BAD_ARGUMENT);
    memset(memory, 0, sizeof memory);
    FAILS_EVERYWHERE(at = 0, sta_hw_load_from(&dev, &IMAGE, read_image, &at, buffer, sizeof buffer));
    CHECK(!memcmp(memory, image, IMAGE_BYTES));
    at = 1;
    GIVES(sta_hw_load_from(&dev, &IMAGE, read_image, &at, buffer, sizeof buffer), STA_HW_WRONG_SIZE);
    CHECK(dev.found == IMAGE_BYTES - 1);
    for (at = 0; at < 2; at++) { /* a reader that says it has more than was wanted, whatever it adds up to */
        const size_t more[] = {IMAGE_BYTES, (size_t)0 - IMAGE_BYTES};
        GIVES(sta_hw_load_from(&dev, &IMAGE, read_too_much, (void *)(uintptr_t)&more[at], buffer, sizeof buffer),
              STA_HW_BAD_ARGUMENT);
        CHECK(!dev.image.bytes);
    }
    at = 0;
    image[7] ^= 1;
    GIVES(sta_hw_load_from(&dev, &IMAGE, read_image, &at, &byte, 1), STA_HW_DAMAGED);
    image[7] ^= 1;
    /* From a file, which is closed whatever happens. */
    free_file = next_file();
    GIVES(sta_hw_load_file(&dev, &IMAGE, NULL), STA_HW_BAD_ARGUMENT);
    snprintf(path, sizeof path, "%s/none", folder);
    GIVES(sta_hw_load_file(&dev, &IMAGE, path), STA_HW_CANNOT_READ);
    GIVES(sta_hw_load_file(&dev, &IMAGE, folder), STA_HW_CANNOT_READ);
    snprintf(path, sizeof path, "%s/image", folder);
    write_file(path, image, IMAGE_BYTES);
    GIVES(sta_hw_load_file(&dev, &IMAGE, path), STA_HW_OK);
    write_file(path, memory, IMAGE_BYTES + 1);
    GIVES(sta_hw_load_file(&dev, &IMAGE, path), STA_HW_WRONG_SIZE);
    CHECK(dev.found == IMAGE_BYTES + 1);
    write_file(path, memory, IMAGE_BYTES - 1);
    GIVES(sta_hw_load_file(&dev, &IMAGE, path), STA_HW_WRONG_SIZE);
    CHECK(next_file() == free_file);
}

static void test_input_and_output(void) {
    struct sta_hw_bus bus = fake_bus();
    struct sta_hw dev;
    uint8_t header[STA_HW_INPUTS_HEADER_BYTES];
    uint32_t count = 0;
    int i;
    GIVES(sta_hw_open(&dev, &bus, 0), STA_HW_OK);
    GIVES(sta_hw_check_inputs(&dev, inputs, &count), STA_HW_NOT_LOADED);
    GIVES(sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES), STA_HW_OK);
    GIVES(sta_hw_check_inputs(NULL, inputs, &count), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_check_inputs(&dev, NULL, &count), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_check_inputs(&dev, inputs, NULL), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_check_inputs(&dev, inputs, &count), STA_HW_OK);
    CHECK(count == 2);
    for (i = 0; i < 20; i += 4) {
        static const enum sta_hw_code codes[] = {STA_HW_NO_INPUTS, STA_HW_OTHER_VERSION, STA_HW_OK, STA_HW_WRONG_SIZE,
                                                 STA_HW_OTHER_IMAGE};
        memcpy(header, inputs, sizeof header);
        header[i + 3] ^= 0x80;
        GIVES(sta_hw_check_inputs(&dev, header, &count), codes[i / 4]);
    }
    for (i = 20; i < STA_HW_INPUTS_HEADER_BYTES; i++) {
        memcpy(header, inputs, sizeof header);
        header[i] = 1;
        GIVES(sta_hw_check_inputs(&dev, header, &count), STA_HW_NO_INPUTS);
    }
    GIVES(sta_hw_set_length(NULL, 0), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_set_length(&dev, 0), STA_HW_OK); /* several texts: their lengths are their own */
    GIVES(sta_hw_set_length(&dev, 1), STA_HW_WRONG_SIZE);
    GIVES(sta_hw_put_input(&dev, NULL, INPUT_BYTES), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_put_input(&dev, inputs, INPUT_BYTES + 1), STA_HW_WRONG_SIZE);
    GIVES(sta_hw_put_text(&dev, 0, NULL, TOKENS * WIDTH), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_put_text(&dev, 0, tokens, TOKENS * WIDTH - 1), STA_HW_WRONG_SIZE);
    /* Token after token gives the bytes that `sta-hw input` writes. */
    FAILS_EVERYWHERE((void)0, sta_hw_put_text(&dev, 0, tokens, TOKENS * WIDTH));
    FAILS_EVERYWHERE((void)0, sta_hw_put_text(&dev, 1, tokens + TOKENS * WIDTH, SECOND * WIDTH));
    CHECK(!memcmp(memory + IMAGE.input.offset, inputs + FIRST_INPUT, INPUT_BYTES));
    FAILS_EVERYWHERE(memset(memory, 0, IMAGE_BYTES),
                     sta_hw_put_input(&dev, inputs + FIRST_INPUT, INPUT_BYTES));
    CHECK(!memcmp(memory + IMAGE.input.offset, inputs + FIRST_INPUT, INPUT_BYTES));
    /* What lies there comes back token after token: an output where the input is. */
    dev.image.outputs = IMAGE.input;
    GIVES(sta_hw_get_outputs(&dev, 0, outputs, TOKENS * WIDTH), STA_HW_NOT_STARTED);
    GIVES(sta_hw_start(&dev, 0), STA_HW_OK);
    GIVES(sta_hw_get_outputs(&dev, 0, NULL, TOKENS * WIDTH), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_get_outputs(&dev, 0, outputs, TOKENS * WIDTH + 1), STA_HW_WRONG_SIZE);
    FAILS_EVERYWHERE(memset(outputs, 0, sizeof outputs), sta_hw_get_outputs(&dev, 0, outputs, TOKENS * WIDTH));
    CHECK(!memcmp(outputs, tokens, sizeof outputs));
    dev.image.pooled.channels = 0;
    GIVES(sta_hw_get_pooled(&dev, 0, pooled, 0), STA_HW_NO_OUTPUT);
}

/* One text of any length up to its tokens: the register, and the windows of its mean. */
static void test_lengths(void) {
    enum { ROWS = 4, DEPTH = 3, MOST = 20, AT = 48 };
    static const struct sta_hw_text one[] = {{0, MOST}};
    static int16_t values[MOST];
    struct sta_hw_bus bus = fake_bus();
    struct sta_hw_image single = IMAGE;
    struct sta_hw dev;
    uint32_t count, at, each;
    single.text_count = 1;
    single.texts = one;
    single.mean.offset = AT;
    single.mean.depth = DEPTH;
    single.input.rows = ROWS;
    single.input.channels = 1;
    single.input.lines = MOST;
    single.outputs.channels = 0;
    GIVES(sta_hw_open(&dev, &bus, 0), STA_HW_OK);
    each = dev.groups * DEPTH;
    single.mean.bytes = (MOST + each - 1) / each * each * ROWS;
    CHECK(single.mean.bytes > 64); /* more than a piece of the stack */
    GIVES(sta_hw_load(&dev, &single, image, IMAGE_BYTES), STA_HW_OK);
    CHECK(dev.length == MOST);
    GIVES(sta_hw_set_length(&dev, 0), STA_HW_WRONG_SIZE);
    GIVES(sta_hw_set_length(&dev, MOST + 1), STA_HW_WRONG_SIZE);
    for (count = 1; count <= MOST; count++) {
        FAILS_EVERYWHERE(GIVES(sta_hw_load(&dev, &single, image, IMAGE_BYTES), STA_HW_OK); memset(memory, 0xAA, IMAGE_BYTES),
                         sta_hw_set_length(&dev, count));
        for (at = 0; at < single.mean.bytes; at++) {
            const uint32_t block = at / ROWS / each, within = at / ROWS % each;
            const uint32_t token = block * each + dev.groups * (within % DEPTH) + within / DEPTH;
            CHECK(memory[AT + at] == (token < count ? MOST / count : 0));
        }
        CHECK(memory[AT - 1] == 0xAA && memory[AT + single.mean.bytes] == 0xAA);
        GIVES(sta_hw_put_text(&dev, 0, values, count + 1), STA_HW_WRONG_SIZE);
        GIVES(sta_hw_put_text(&dev, 0, values, count), STA_HW_OK);
        fake.length = count;
        GIVES(sta_hw_start(&dev, 0), STA_HW_OK);
        GIVES(sta_hw_poll(&dev, 100), STA_HW_OK);
    }
    fake.length = 0;
}

/* Three texts in tiles of more rows than a piece of the stack holds; the last two share a tile. */
static void test_batches(void) {
    enum { ROWS = 64, LINES = 192, COLUMNS = 3 };
    static const struct sta_hw_text texts[] = {{0, 70}, {128, 5}, {140, 33}};
    static int16_t given[70 * COLUMNS], back[70 * COLUMNS];
    static uint8_t before[2 * LINES * COLUMNS];
    struct sta_hw_bus bus = fake_bus();
    struct sta_hw dev;
    uint32_t text, i, column;
    GIVES(sta_hw_open(&dev, &bus, 0), STA_HW_OK);
    GIVES(sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES), STA_HW_OK);
    dev.image.input.offset = 16;
    dev.image.input.lines = LINES;
    dev.image.input.channels = COLUMNS;
    dev.image.input.rows = ROWS;
    dev.image.outputs = dev.image.pooled = dev.image.input;
    dev.image.text_count = 3;
    dev.image.texts = texts;
    CHECK(16 + 2 * LINES * COLUMNS <= IMAGE_BYTES);
    for (text = 0; text < 3; text++) {
        const uint32_t count = texts[text].tokens * COLUMNS, first = texts[text].first;
        const uint32_t stop = text < 2 ? texts[text + 1].first : LINES;
        for (i = 0; i < count; i++)
            given[i] = (int16_t)(i % 2 ? 3 - 70 * (int)i : 70 * (int)(i + text));
        given[5] = -32768;
        memcpy(before, memory + 16, sizeof before);
        GIVES(sta_hw_put_text(&dev, text, given, count), STA_HW_OK);
        for (i = 0; i < LINES; i++) /* as docs/image.md has it; the last token repeated; the others' as they were */
            for (column = 0; column < COLUMNS; column++) {
                const uint32_t place = 2 * ((i / ROWS * COLUMNS + column) * ROWS + i % ROWS);
                const uint32_t token = i - first < texts[text].tokens ? i - first : texts[text].tokens - 1;
                const int value = (int16_t)(memory[16 + place] | memory[16 + place + 1] << 8);
                if (i >= first && i < stop)
                    CHECK(value == given[token * COLUMNS + column]);
                else
                    CHECK(!memcmp(memory + 16 + place, before + place, 2));
            }
        GIVES(sta_hw_start(&dev, 0), STA_HW_OK);
        GIVES(sta_hw_get_outputs(&dev, text, back, count), STA_HW_OK);
        CHECK(!memcmp(given, back, 2 * count));
    }
    for (text = 0; text < 3; text++) { /* a text's pooled line has the text's number */
        GIVES(sta_hw_get_pooled(&dev, text, back, COLUMNS), STA_HW_OK);
        CHECK(back[0] == (text == 0 ? 0 : text == 1 ? 3 - 70 * 3 : 70 * 6));
    }
    GIVES(sta_hw_put_text(&dev, 3, given, 9), STA_HW_NO_TEXT);
    GIVES(sta_hw_get_pooled(&dev, 3, back, 9), STA_HW_NO_TEXT);
    GIVES(sta_hw_get_outputs(&dev, 3, back, 9), STA_HW_NO_TEXT);
}

static void test_running(void) {
    struct sta_hw_bus bus = fake_bus();
    struct sta_hw dev;
    uint32_t counters[STA_HW_COUNTER_COUNT];
    int i;
    GIVES(sta_hw_open(&dev, &bus, 0), STA_HW_OK);
    GIVES(sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES), STA_HW_OK);
    GIVES(sta_hw_poll(NULL, 1), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_wait(NULL, 1), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_reset(NULL, 1), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_start(NULL, 1), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_counters(NULL, counters), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_counters(&dev, NULL), STA_HW_BAD_ARGUMENT);
    GIVES(sta_hw_poll(&dev, 1), STA_HW_NOT_STARTED);
    GIVES(sta_hw_wait(&dev, 7), STA_HW_NOT_STARTED);
    GIVES(sta_hw_poll(&dev, 0), STA_HW_TIMEOUT);
    FAILS_EVERYWHERE(fake.registers[STA_HW_REG_LENGTH / 4] = 0xFFFF, sta_hw_start(&dev, 1));
    FAILS_EVERYWHERE((void)0, sta_hw_poll(&dev, 1));
    fake.busy_looks = 4;
    GIVES(sta_hw_start(&dev, 0), STA_HW_OK); /* whose own look at the status is one of them */
    GIVES(sta_hw_start(&dev, 0), STA_HW_BUSY);
    GIVES(sta_hw_poll(&dev, 1), STA_HW_TIMEOUT);
    GIVES(sta_hw_poll(&dev, 1), STA_HW_OK);
    CHECK(fake.pauses == 1);
    fake.refuse = 1;
    GIVES(sta_hw_start(&dev, 0), STA_HW_REFUSED);
    fake.refuse = 0;
    fake.busy_looks = 1000;
    FAILS_EVERYWHERE((void)0, sta_hw_start(&dev, 1));
    /* Interrupts: the end's; others'; none; the end without one; too many of others; a bus that fails. */
    fake.busy_looks = 5;
    fake.waits = 0;
    GIVES(sta_hw_start(&dev, 1), STA_HW_OK);
    GIVES(sta_hw_wait(&dev, 7), STA_HW_OK);
    CHECK(fake.waits == 3);
    GIVES(sta_hw_start(&dev, 1), STA_HW_OK);
    fake.timed_out_at = 4;
    GIVES(sta_hw_wait(&dev, 7), STA_HW_TIMEOUT);
    fake.counting_down = 2;
    fake.timed_out_at = fake.waits;
    GIVES(sta_hw_wait(&dev, 7), STA_HW_OK);
    fake.timed_out_at = -1;
    fake.counting_down = 100000;
    GIVES(sta_hw_wait(&dev, 7), STA_HW_TIMEOUT);
    FAILS_EVERYWHERE(fake.counting_down = 2, sta_hw_wait(&dev, 7));
    dev.bus.wait = NULL;
    GIVES(sta_hw_wait(&dev, 7), STA_HW_NO_INTERRUPT);
    GIVES(sta_hw_start(&dev, 1), STA_HW_NO_INTERRUPT);
    dev.bus.pause = NULL;
    fake.busy_looks = 3;
    FAILS_EVERYWHERE((void)0, sta_hw_reset(&dev, 3));
    fake.busy_looks = 4;
    GIVES(sta_hw_reset(&dev, 3), STA_HW_TIMEOUT);
    fake.counting_down = 0;
    fake.busy_looks = 0;
    GIVES(sta_hw_start(&dev, 0), STA_HW_OK);
    /* Failures: every code, and one that is newer than the driver. */
    for (i = 1; i < 255; i += i < STA_HW_FAULT_END ? 1 : 60) {
        fake.registers[STA_HW_REG_STATUS / 4] = STA_HW_STATUS_FAILED_MASK | (uint32_t)i << STA_HW_STATUS_ERROR_SHIFT;
        fake.registers[STA_HW_REG_ERROR_INSTRUCTION / 4] = (uint32_t)(1000 + i);
        GIVES(sta_hw_poll(&dev, 1), STA_HW_FAILED);
        CHECK((int)dev.fault == i && dev.instruction == (uint32_t)(1000 + i));
    }
    GIVES(sta_hw_get_pooled(&dev, 0, pooled, CHANNELS), STA_HW_FAILED);
    GIVES(sta_hw_get_outputs(&dev, 0, outputs, TOKENS * CHANNELS), STA_HW_FAILED);
    fake.calls = 0;
    fake.fail_at = 1;
    GIVES(sta_hw_poll(&dev, 1), STA_HW_BUS);
    /* What ended is not what lies in the memory now. */
    for (i = 0; i < 6; i++) {
        GIVES(sta_hw_start(&dev, 0), STA_HW_OK);
        GIVES(sta_hw_poll(&dev, 1), STA_HW_OK);
        GIVES(sta_hw_poll(&dev, 1), STA_HW_OK);
        GIVES(sta_hw_get_pooled(&dev, 0, pooled, CHANNELS), STA_HW_OK);
        fake.refuse = i == 4;
        GIVES(i == 0   ? sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES)
              : i == 1 ? sta_hw_put_input(&dev, inputs, INPUT_BYTES)
              : i == 2 ? sta_hw_put_text(&dev, 0, tokens, TOKENS * WIDTH)
              : i == 3 ? sta_hw_set_length(&dev, 0)
              : i == 4 ? sta_hw_start(&dev, 0)
                       : sta_hw_open(&dev, &bus, 0), i == 4 ? STA_HW_REFUSED : STA_HW_OK);
        fake.registers[STA_HW_REG_STATUS / 4] = STA_HW_STATUS_DONE_MASK;
        fake.refuse = 0;
        GIVES(sta_hw_poll(&dev, 1), STA_HW_NOT_STARTED);
        GIVES(sta_hw_get_pooled(&dev, 0, pooled, CHANNELS), i < 5 ? STA_HW_NOT_STARTED : STA_HW_NOT_LOADED);
        GIVES(sta_hw_get_outputs(&dev, 0, outputs, TOKENS * CHANNELS), i < 5 ? STA_HW_NOT_STARTED : STA_HW_NOT_LOADED);
    }
    GIVES(sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES), STA_HW_OK);
    for (i = 0; i < STA_HW_COUNTER_COUNT; i++)
        fake.registers[(STA_HW_REG_COUNTER_CYCLES / 4) + i] = (uint32_t)(77 * i);
    FAILS_EVERYWHERE((void)0, sta_hw_counters(&dev, counters));
    for (i = 0; i < STA_HW_COUNTER_COUNT; i++)
        CHECK(counters[i] == (uint32_t)(77 * i));
}

/* -- a mapped bus ------------------------------------------------------------------------------- */

static uint32_t mapped_registers[0x400 / 4], cleaned, invalidated, at_barrier;
static struct sta_hw_mapped mapped;
static int idles, raise_at, barriers;

static void barrier(void) {
    barriers++;
    at_barrier = mapped_registers[STA_HW_REG_IMAGE_SIZE / 4];
    mapped_registers[STA_HW_REG_ID / 4] = 789; /* what was read before is not this */
}

static void clean(volatile uint8_t *start, uint32_t bytes) {
    CHECK(start >= memory && start + bytes <= memory + sizeof memory);
    cleaned += bytes;
}

static void invalidate(volatile uint8_t *start, uint32_t bytes) {
    CHECK(start >= memory && start + bytes <= memory + sizeof memory);
    invalidated += bytes;
}

static void idle(void) {
    if (idles++ == raise_at)
        sta_hw_mapped_interrupt(&mapped);
}

static void test_mapped(void) {
    struct sta_hw_bus bus;
    uint8_t bytes[40], back[40];
    uint32_t value, offset, count, i;
    memset(&mapped, 0, sizeof mapped);
    mapped.registers = mapped_registers;
    mapped.memory = memory;
    sta_hw_mapped_bus(&bus, &mapped, ADDRESS, IMAGE_BYTES);
    CHECK(!bus.wait && bus.memory_address == ADDRESS && bus.memory_bytes == IMAGE_BYTES);
    for (i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 7 + 1);
    for (offset = 0; offset < 9; offset++) /* every alignment and length, and nothing beside it */
        for (count = 0; count < 19; count++) {
            memset(memory, 0xEE, 64);
            CHECK(!bus.put(bus.context, offset, bytes, count));
            CHECK(!memcmp(memory + offset, bytes, count) && memory[offset + count] == 0xEE);
            CHECK(!offset || memory[offset - 1] == 0xEE);
            memset(back, 0xDD, sizeof back);
            CHECK(!bus.get(bus.context, offset, back, count));
            CHECK(!memcmp(back, bytes, count) && back[count] == 0xDD);
        }
    CHECK(!cleaned && !invalidated);
    mapped.clean = clean;
    mapped.invalidate = invalidate;
    mapped.idle = idle;
    sta_hw_mapped_bus(&bus, &mapped, ADDRESS, IMAGE_BYTES);
    CHECK(!bus.put(bus.context, 3, bytes, 21) && !bus.get(bus.context, 3, back, 20));
    CHECK(cleaned == 21 && invalidated == 20);
    CHECK(!bus.write(bus.context, STA_HW_REG_IMAGE_SIZE, 123) && mapped_registers[STA_HW_REG_IMAGE_SIZE / 4] == 123);
    mapped_registers[STA_HW_REG_ID / 4] = 456;
    CHECK(!bus.read(bus.context, STA_HW_REG_ID, &value) && value == 456);
    mapped.barrier = barrier;
    CHECK(!bus.write(bus.context, STA_HW_REG_IMAGE_SIZE, 321) && barriers == 1 && at_barrier == 123); /* ahead of it */
    mapped_registers[STA_HW_REG_ID / 4] = 456;
    CHECK(!bus.read(bus.context, STA_HW_REG_ID, &value) && barriers == 2 && value == 456); /* behind it */
    CHECK(mapped_registers[STA_HW_REG_ID / 4] == 789);
    raise_at = 4;
    CHECK(bus.wait(bus.context, 3) == STA_HW_TIMED_OUT && idles == 3);
    CHECK(bus.wait(bus.context, 3) == STA_HW_RAISED && idles == 5);
    CHECK(mapped_registers[STA_HW_REG_INTERRUPT_CLEAR / 4] == 1 && !mapped.raised);
}

/* -- Linux, whose calls are the test's own here ------------------------------------------------- */

enum { MOST_MAPPED = 1 << 20 }; /* of 4 GiB so much is really there: 32 bits have no more */
static const char *tree;                 /* a folder that has what / would have */
static int open_at, map_at, opens, maps; /* the call, from 0, that fails; -1 for none */
static int poll_answer, poll_error, short_write, short_read, interrupts_on, polled_for, open_files, mapped_regions;

/* As the C library calls them for large files. */
#define __wrap_open __wrap_open64
#define __real_open __real_open64
#define __wrap_mmap __wrap_mmap64
#define __real_mmap __real_mmap64
int __wrap_open(const char *path, int flags, ...);
int __real_open(const char *path, int flags, ...);
int __wrap_close(int file);
void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset);
void *__real_mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset);
int __wrap_munmap(void *address, size_t bytes);
int __real_munmap(void *address, size_t bytes);
int __wrap_poll(struct pollfd *files, nfds_t count, int milliseconds);
ssize_t __wrap_write(int file, const void *bytes, size_t count);
ssize_t __wrap_read(int file, void *bytes, size_t count);
ssize_t __real_read(int file, void *bytes, size_t count);

int __wrap_open(const char *path, int flags, ...) {
    char there[600];
    int file;
    if (opens++ == open_at) {
        errno = EACCES;
        return -1;
    }
    snprintf(there, sizeof there, "%s%s", tree, path);
    file = __real_open(there, flags);
    open_files += file >= 0;
    return file;
}

int __wrap_close(int file) {
    open_files--;
    return __real_close(file);
}

void *__wrap_mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset) {
    if (maps++ == map_at) {
        errno = ENODEV;
        return MAP_FAILED;
    }
    mapped_regions++;
    if (bytes > MOST_MAPPED)
        bytes = MOST_MAPPED;
    return __real_mmap(address, bytes, protection, flags, file, offset);
}

int __wrap_munmap(void *address, size_t bytes) {
    mapped_regions--;
    return __real_munmap(address, bytes < MOST_MAPPED ? bytes : MOST_MAPPED);
}

int __wrap_poll(struct pollfd *files, nfds_t count, int milliseconds) {
    CHECK(count == 1 && files->events == POLLIN && interrupts_on);
    polled_for = milliseconds;
    errno = poll_error;
    return poll_answer;
}

ssize_t __wrap_write(int file, const void *bytes, size_t count) {
    CHECK(file >= 0 && count == 4 && *(const uint32_t *)bytes == 1);
    interrupts_on = 1;
    errno = EIO;
    return short_write ? -1 : 4;
}

ssize_t __wrap_read(int file, void *bytes, size_t count) {
    if (count != 4)
        return __real_read(file, bytes, count);
    interrupts_on = 0;
    memset(bytes, 0, 4);
    return short_read ? 2 : 4;
}

static void tell(const char *name, const char *text) {
    char path[600];
    snprintf(path, sizeof path, "%s/sys/class/uio/uio0/maps/%s", tree, name);
    write_file(path, text, strlen(text));
}

static void test_uio(const char *folder) {
    const long page = sysconf(_SC_PAGESIZE);
    struct sta_hw_linux linux_bus;
    struct sta_hw_linux_problem problem;
    struct sta_hw_bus bus;
    char path[600], name[200];
    uint32_t value;
    uint8_t byte = 0x5A;
    FILE *file;
    int i;
    tree = folder;
    open_at = map_at = -1;
    /* No such device; numbers that are none; one that tells all. */
    CHECK(sta_hw_linux_uio(NULL, &bus, "uio7", &problem) == -1 && problem.error == EINVAL);
    CHECK(sta_hw_linux_uio(&linux_bus, NULL, "uio7", &problem) == -1 && problem.error == EINVAL);
    CHECK(sta_hw_linux_uio(&linux_bus, &bus, NULL, &problem) == -1 && problem.error == EINVAL);
    CHECK(sta_hw_linux_uio(&linux_bus, &bus, "uio7", NULL) == -1);
    CHECK(sta_hw_linux_uio(&linux_bus, &bus, "uio7", &problem) == -1 && problem.error == ENOENT);
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    CHECK(sta_hw_linux_uio(&linux_bus, &bus, name, &problem) == -1 && problem.error == ENAMETOOLONG);
    tell("map0/size", "");
    CHECK(sta_hw_linux_uio(&linux_bus, &bus, "uio0", &problem) == -1 && problem.error == EINVAL);
    tell("map0/size", "0x1000\n");
    tell("map1/addr", "0x0000000080000000\n");
    tell("map1/size", "what\n");
    CHECK(sta_hw_linux_uio(&linux_bus, &bus, "uio0", &problem) == -1 && strstr(problem.doing, "map 1"));
    tell("map1/size", "0x3000\n");
    snprintf(path, sizeof path, "%s/dev/uio0", tree);
    file = fopen(path, "wb");
    CHECK(file && !fseek(file, 4 * page - 1, SEEK_SET) && fputc(0, file) == 0 && !fclose(file));
    for (i = 0; i < 6; i++) { /* each call that opens a file, and each map */
        opens = 0, open_at = i;
        CHECK(sta_hw_linux_uio(&linux_bus, &bus, "uio0", &problem) == -1 && problem.error == EACCES && !open_files);
    }
    open_at = -1;
    for (i = 0; i < 2; i++) {
        maps = 0, map_at = i;
        CHECK(sta_hw_linux_uio(&linux_bus, &bus, "uio0", &problem) == -1 && problem.error == ENODEV);
        CHECK(!open_files && !mapped_regions && strstr(problem.doing, i ? "memory" : "registers"));
    }
    map_at = -1;
    CHECK(sta_hw_linux_uio(&linux_bus, &bus, "uio0", &problem) == 0 && open_files == 1 && mapped_regions == 2);
    CHECK(bus.memory_address == ADDRESS && bus.memory_bytes == 0x3000);
    CHECK(!bus.write(bus.context, STA_HW_REG_IMAGE_SIZE, 0x12345678));
    CHECK(!bus.read(bus.context, STA_HW_REG_IMAGE_SIZE, &value) && value == 0x12345678);
    CHECK(!bus.put(bus.context, 0x2FFF, &byte, 1));
    /* The interrupt: raised, not in time, a signal, no end of time, errors. */
    poll_answer = 1;
    CHECK(bus.wait(bus.context, 250) == STA_HW_RAISED && polled_for == 250 && !interrupts_on);
    poll_answer = 0;
    CHECK(bus.wait(bus.context, 0xFFFFFFFFu) == STA_HW_TIMED_OUT && polled_for == -1);
    poll_answer = -1, poll_error = EINTR;
    CHECK(bus.wait(bus.context, 1) == STA_HW_RAISED);
    poll_error = ENOMEM;
    CHECK(bus.wait(bus.context, 1) == -ENOMEM);
    poll_answer = 1, short_read = 1;
    CHECK(bus.wait(bus.context, 1) == -EIO);
    short_write = 1;
    CHECK(bus.wait(bus.context, 1) == -EIO);
    sta_hw_linux_close(&linux_bus);
    CHECK(!open_files && !mapped_regions);
    sta_hw_linux_close(&linux_bus); /* once more does nothing */
    CHECK(!open_files && !mapped_regions);
    file = fopen(path, "rb"); /* map N is N pages into the device */
    CHECK(file && !fseek(file, page + 0x2FFF, SEEK_SET) && fgetc(file) == 0x5A);
    fclose(file);
    /* A part of a page: the kernel counts and maps from the page's begin on, and says where the part begins. */
    tell("map0/offset", "0x800\n");
    tell("map1/offset", "0x40\n");
    CHECK(sta_hw_linux_uio(&linux_bus, &bus, "uio0", &problem) == 0);
    CHECK(bus.memory_address == ADDRESS + 0x40 && bus.memory_bytes == 0x3000 - 0x40);
    CHECK(!bus.write(bus.context, STA_HW_REG_IMAGE_SIZE, 0x87654321));
    CHECK(((uint32_t *)linux_bus.register_map)[(0x800 + STA_HW_REG_IMAGE_SIZE) / 4] == 0x87654321);
    CHECK(!bus.get(bus.context, 0x2FFF - 0x40, &byte, 1) && byte == 0x5A);
    sta_hw_linux_close(&linux_bus);
    tell("map1/offset", "0x3000\n");
    CHECK(sta_hw_linux_uio(&linux_bus, &bus, "uio0", &problem) == -1 && problem.error == EINVAL && !open_files);
    tell("map0/offset", "0x0\n");
    tell("map1/offset", "0x0\n");
    tell("map1/size", "0x100000000\n"); /* more than an image's 32 bits */
    CHECK(sta_hw_linux_uio(&linux_bus, &bus, "uio0", &problem) == 0 && bus.memory_bytes == 0xFFFFF000u);
    sta_hw_linux_close(&linux_bus);
    CHECK(!open_files && !mapped_regions);
}

static void test_devmem(const char *folder) {
    struct sta_hw_linux linux_bus;
    struct sta_hw_linux_problem problem;
    struct sta_hw_bus bus;
    char path[600];
    uint8_t byte = 0;
    FILE *file;
    int i;
    tree = folder;
    snprintf(path, sizeof path, "%s/dev/mem", tree);
    remove(path);
    CHECK(sta_hw_linux_devmem(NULL, &bus, 0, 0x10000, 0x2000, &problem) == -1 && problem.error == EINVAL);
    CHECK(sta_hw_linux_devmem(&linux_bus, NULL, 0, 0x10000, 0x2000, &problem) == -1 && problem.error == EINVAL);
    CHECK(sta_hw_linux_devmem(&linux_bus, &bus, 0, 0x10000, 0x2000, &problem) == -1 && problem.error == ENOENT);
    file = fopen(path, "wb");
    CHECK(file && !fseek(file, 0x12000 - 1, SEEK_SET) && fputc(0x77, file) == 0x77 && !fclose(file));
    for (i = 0; i < 2; i++) {
        maps = 0, map_at = i;
        CHECK(sta_hw_linux_devmem(&linux_bus, &bus, 0, 0x10000, 0x2000, &problem) == -1 && problem.error == ENODEV);
        CHECK(!open_files && !mapped_regions && strstr(problem.doing, i ? "memory" : "registers"));
    }
    map_at = -1;
    CHECK(sta_hw_linux_devmem(&linux_bus, &bus, 0, 0x10000, 0x2000, &problem) == 0 && !open_files);
    CHECK(!bus.wait && bus.memory_address == 0x10000 && bus.memory_bytes == 0x2000);
    CHECK(!bus.get(bus.context, 0x1FFF, &byte, 1) && byte == 0x77);
    sta_hw_linux_close(&linux_bus);
    CHECK(!mapped_regions);
}

/* -- the simulated accelerator ------------------------------------------------------------------ */

static void runs_well(struct sta_hw *dev, int interrupt) {
    uint32_t counters[STA_HW_COUNTER_COUNT], text, length = 1;
    GIVES(sta_hw_put_text(dev, 0, tokens, TOKENS * WIDTH), STA_HW_OK);
    GIVES(sta_hw_put_text(dev, 1, tokens + TOKENS * WIDTH, SECOND * WIDTH), STA_HW_OK);
    CHECK(!dev->bus.write(dev->bus.context, STA_HW_REG_LENGTH, 0xABCD)); /* what another program left */
    GIVES(sta_hw_start(dev, interrupt), STA_HW_OK);
    CHECK(!dev->bus.read(dev->bus.context, STA_HW_REG_LENGTH, &length) && !length);
    GIVES(sta_hw_start(dev, interrupt), STA_HW_BUSY);
    GIVES(sta_hw_get_pooled(dev, 0, pooled, CHANNELS), STA_HW_BUSY);
    GIVES(interrupt ? sta_hw_wait(dev, 1000) : sta_hw_poll(dev, 100000), STA_HW_OK);
    for (text = 0; text < IMAGE.text_count; text++) {
        const uint32_t count = IMAGE.texts[text].tokens * CHANNELS;
        memset(pooled, 0, sizeof pooled);
        memset(outputs, 0, sizeof outputs);
        GIVES(sta_hw_get_pooled(dev, text, pooled, CHANNELS), STA_HW_OK);
        GIVES(sta_hw_get_outputs(dev, text, outputs, count), STA_HW_OK);
        CHECK(!memcmp(pooled, expected_pooled + text * CHANNELS, sizeof pooled));
        CHECK(!memcmp(outputs, expected_outputs + text * TOKENS * CHANNELS, 2 * count));
    }
    GIVES(sta_hw_counters(dev, counters), STA_HW_OK);
    CHECK(counters[STA_HW_COUNTER_CYCLES] > 100 && counters[STA_HW_COUNTER_READ_BEATS] > 10);
}

static void fails_with(struct sta_hw *dev, enum sta_hw_fault fault) {
    uint32_t status;
    GIVES(sta_hw_start(dev, 1), STA_HW_OK);
    GIVES(sta_hw_wait(dev, 100000), STA_HW_FAILED);
    CHECK(dev->fault == fault);
    says(dev, STA_HW_FAILED, sta_hw_fault_sentence(fault));
    CHECK(!dev->bus.read(dev->bus.context, STA_HW_REG_STATUS, &status));
    CHECK(!(status & STA_HW_STATUS_INTERRUPT_MASK)); /* the line is low again */
}

/* The image again: whatever was broken in memory is whole. */
static void again(struct sta_hw *dev) {
    GIVES(sta_hw_reset(dev, 1000), STA_HW_OK);
    GIVES(sta_hw_load(dev, &IMAGE, image, IMAGE_BYTES), STA_HW_OK);
    GIVES(sta_hw_check_memory(dev), STA_HW_OK);
    runs_well(dev, 0);
    GIVES(sta_hw_load(dev, &IMAGE, image, IMAGE_BYTES), STA_HW_OK);
}

static void test_verilated(const char *library, const char *folder) {
    struct sta_hw_verilated model;
    struct sta_hw_bus bus;
    struct sta_hw dev;
    char path[600];
    uint32_t value;
    snprintf(path, sizeof path, "%s/none.so", folder);
    CHECK(sta_hw_verilated_open(&model, &bus, path, memory, IMAGE_BYTES, ADDRESS) != NULL);
    CHECK(sta_hw_verilated_open(NULL, &bus, library, memory, IMAGE_BYTES, ADDRESS) != NULL);
    CHECK(sta_hw_verilated_open(&model, NULL, library, memory, IMAGE_BYTES, ADDRESS) != NULL);
    CHECK(sta_hw_verilated_open(&model, &bus, NULL, memory, IMAGE_BYTES, ADDRESS) != NULL);
    CHECK(sta_hw_verilated_open(&model, &bus, library, NULL, IMAGE_BYTES, ADDRESS) != NULL);
    sta_hw_verilated_close(&model);
    CHECK(sta_hw_verilated_open(&model, &bus, "libm.so.6", memory, IMAGE_BYTES, ADDRESS) != NULL);
    CHECK(sta_hw_verilated_open(&model, &bus, library, memory, IMAGE_BYTES, ADDRESS) == NULL);
    CHECK(bus.read(bus.context, 0x7FC, &value) != 0); /* a register that there is not: the bus says so */
    CHECK(bus.write(bus.context, STA_HW_REG_ID, 0) != 0);
    GIVES(sta_hw_open(&dev, &bus, IMAGE.hash), STA_HW_OK);
    GIVES(sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES), STA_HW_OK);
    GIVES(sta_hw_check_memory(&dev), STA_HW_OK);
    runs_well(&dev, 1);
    runs_well(&dev, 0);
    /* A program that does not end in time, then does; one that is reset under way, and goes on from a clean start. */
    GIVES(sta_hw_start(&dev, 1), STA_HW_OK);
    model.cycles_per_millisecond = 20;
    GIVES(sta_hw_wait(&dev, 1), STA_HW_TIMEOUT);
    GIVES(sta_hw_poll(&dev, 1), STA_HW_TIMEOUT);
    model.cycles_per_millisecond = 1000;
    GIVES(sta_hw_wait(&dev, 1000), STA_HW_OK);
    GIVES(sta_hw_start(&dev, 1), STA_HW_OK);
    GIVES(sta_hw_reset(&dev, 1000), STA_HW_OK);
    GIVES(sta_hw_wait(&dev, 1000), STA_HW_NOT_STARTED);
    runs_well(&dev, 1);
    /* Every way to fail, and a good run after each. */
    memory[IMAGE.program] ^= 1; /* the magic */
    fails_with(&dev, STA_HW_FAULT_HEADER);
    CHECK(dev.instruction == 0);
    again(&dev);
    memory[IMAGE.program + OF(MODEL, _PROGRAM_HASH_OFFSET)] ^= 1;
    fails_with(&dev, STA_HW_FAULT_HARDWARE);
    again(&dev);
    memory[IMAGE.program + OF(MODEL, _PROGRAM_HEADER_BYTES) + 4] |= 0xF0; /* bits 36 to 39: no such opcode */
    fails_with(&dev, STA_HW_FAULT_OPCODE);
    CHECK(dev.instruction == 0);
    again(&dev);
    dev.image.program = IMAGE_BYTES; /* behind the image */
    fails_with(&dev, STA_HW_FAULT_ADDRESS);
    again(&dev);
    dev.bus.memory_address += BURST / 2;
    fails_with(&dev, STA_HW_FAULT_ADDRESS);
    dev.bus.memory_address -= BURST / 2;
    again(&dev);
    model.memory.error_low = ADDRESS;
    model.memory.error_high = ADDRESS + IMAGE_BYTES;
    fails_with(&dev, STA_HW_FAULT_READ);
    model.memory.error_low = model.memory.error_high = 0;
    again(&dev);
    model.memory.error_low = ADDRESS + IMAGE.pooled.offset;
    model.memory.error_high = ADDRESS + IMAGE.pooled.offset + BURST;
    fails_with(&dev, STA_HW_FAULT_WRITE);
    model.memory.error_low = model.memory.error_high = 0;
    again(&dev);
    /* A memory that does not answer: nothing ends but by its answer. */
    model.memory.latency = 1000000000;
    GIVES(sta_hw_start(&dev, 1), STA_HW_OK);
    GIVES(sta_hw_wait(&dev, 50), STA_HW_TIMEOUT);
    GIVES(sta_hw_reset(&dev, 100), STA_HW_TIMEOUT);
    GIVES(sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES), STA_HW_BUSY);
    sta_hw_verilated_close(&model);
    CHECK(sta_hw_verilated_open(&model, &bus, library, memory, IMAGE_BYTES, ADDRESS) == NULL);
    GIVES(sta_hw_open(&dev, &bus, IMAGE.hash), STA_HW_OK);
    GIVES(sta_hw_load(&dev, &IMAGE, image, IMAGE_BYTES), STA_HW_OK);
    runs_well(&dev, 1);
    CHECK(model.memory.protocol_errors == 0);
    sta_hw_verilated_close(&model);
    sta_hw_verilated_close(&model); /* once more does nothing */
}

int main(int argc, char **argv) {
    CHECK(argc == 8 && IMAGE.text_count == 2 && IMAGE.texts[0].tokens == TOKENS && IMAGE.texts[1].tokens == SECOND);
    whole_file(argv[2], image, sizeof image);
    whole_file(argv[3], inputs, sizeof inputs);
    whole_file(argv[4], tokens, sizeof tokens);
    whole_file(argv[5], expected_pooled, sizeof expected_pooled);
    whole_file(argv[6], expected_outputs, sizeof expected_outputs);
    test_sentences();
    test_opening();
    test_loading(argv[7]);
    test_input_and_output();
    test_lengths();
    test_batches();
    test_running();
    test_mapped();
    test_uio(argv[7]);
    test_devmem(argv[7]);
    if (strcmp(argv[1], "none"))
        test_verilated(argv[1], argv[7]);
    tree = ""; /* coverage is written at the end */
    printf("%ld checks, sizeof memory %lu\n", checks, (unsigned long)sizeof(struct sta_hw_verilated_memory));
    return 0;
}
