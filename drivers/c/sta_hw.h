/* Driver of an STA-HW accelerator: C99, without allocation, without a library, for any processor.
 *
 * An accelerator is reached through a bus (struct sta_hw_bus): its registers, the memory that it works in, and where
 * there is one its interrupt. sta_hw_mapped.h, sta_hw_linux.h and sta_hw_verilated.h have buses; another one is five
 * functions. What a program needs is in its image (NAME.bin of `sta-hw compile`), and where things lie there in a
 * struct sta_hw_image (NAME.h). docs/driver.md begins with an example.
 *
 * Every function that can fail returns an enum sta_hw_code; sta_hw_explain() says it in a sentence, with its numbers.
 */
#ifndef STA_HW_H
#define STA_HW_H

#include <stddef.h>
#include <stdint.h>

#include "sta_hw_registers.h"

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, sentence) */
#define STA_HW_CODES(X) \
    X(OK, "all is well") \
    X(BAD_ARGUMENT, "an argument is missing or out of range") \
    X(BUS, "the bus, or what it stands for, failed") \
    X(NO_ACCELERATOR, "what answers there is no STA-HW accelerator") \
    X(OTHER_VERSION, "hardware, driver and image are not all of one version") \
    X(OTHER_HARDWARE, "the image or program was made for another configuration of the hardware") \
    X(MISPLACED, "the memory does not begin at a multiple of the longest burst, or ends beyond 4 GiB") \
    X(NO_ROOM, "the image is larger than the memory") \
    X(WRONG_SIZE, "the number of bytes or values is not what the image takes or gives") \
    X(DAMAGED, "the image's bytes are not those that were compiled") \
    X(CANNOT_READ, "the image's file cannot be read") \
    X(NO_INPUTS, "the file of inputs does not begin as one") \
    X(OTHER_IMAGE, "the inputs were made for another image") \
    X(NOT_LOADED, "no image is loaded") \
    X(NO_OUTPUT, "the image has no such output") \
    X(NO_TEXT, "the image has no text of that number") \
    X(BUSY, "a program runs, or a reset is under way") \
    X(REFUSED, "the hardware refused to start, since something else started it in between") \
    X(NO_INTERRUPT, "this bus has no interrupt to wait for") \
    X(TIMEOUT, "the program did not end, or the reset, in the time given") \
    X(NOT_STARTED, "no program was started since the image, input or length was placed, or it was reset") \
    X(FAILED, "the hardware stopped the program")

#define STA_HW_ENTRY(name, sentence) STA_HW_##name,
enum sta_hw_code { STA_HW_CODES(STA_HW_ENTRY) STA_HW_CODE_COUNT };
#undef STA_HW_ENTRY

/* What the function wait() of a bus returns; any other number is an error of its own. */
enum { STA_HW_RAISED = 0, STA_HW_TIMED_OUT = 1 };

/* How the accelerator is reached. Functions return 0, or a number of their own, which `bus_error` then holds. They take
 * effect in the order of their calls: what put() was given is in memory before a later write() reaches its register,
 * and get() reads memory after an earlier read() has its register's value. */
struct sta_hw_bus {
    void *context;                /* their first argument */
    uint64_t memory_address;      /* where the memory begins, as the accelerator's own bus counts */
    uint32_t memory_bytes;
    int (*read)(void *context, uint32_t offset, uint32_t *value);                           /* a register */
    int (*write)(void *context, uint32_t offset, uint32_t value);                           /* a register */
    int (*put)(void *context, uint32_t offset, const void *bytes, uint32_t count);          /* into the memory */
    int (*get)(void *context, uint32_t offset, void *bytes, uint32_t count);                /* out of the memory */
    int (*wait)(void *context, uint32_t milliseconds); /* until the interrupt line is high; NULL where there is none */
    void (*pause)(void *context);                      /* between two looks at the status; NULL for nothing */
};

/* 16-bit values in an image, in lines: of a token or of a text each. Line l, channel c lies at
 * offset + 2 * (((l / rows) * channels + c) * rows + l % rows), little-endian. */
struct sta_hw_tensor {
    uint32_t offset;
    uint32_t lines;    /* a multiple of `rows` */
    uint32_t channels; /* 0: there is none */
    uint32_t rows;
};

/* A text (image, spectrogram): its tokens' lines are `first` to `first + tokens - 1`. */
struct sta_hw_text {
    uint32_t first, tokens;
};

/* The windows of a mean over tokens, which hold each token's weight; 0 bytes: there is no mean. */
struct sta_hw_mean {
    uint32_t offset, bytes, depth;
};

/* Where things lie in an image; NAME.h has it as NAME_IMAGE. */
struct sta_hw_image {
    uint64_t hash;        /* of the configuration that it was compiled for */
    uint32_t version;     /* of the instruction set */
    uint32_t bytes;       /* of the image: whole longest bursts */
    uint32_t burst_bytes; /* of the longest burst */
    uint32_t crc32;       /* of the bytes as compiled, as zlib counts */
    uint32_t program;     /* offset of the program */
    struct sta_hw_tensor input;   /* a line for each token */
    struct sta_hw_tensor pooled;  /* a line for each text */
    struct sta_hw_tensor outputs; /* a line for each token */
    struct sta_hw_mean mean;      /* of an image of one text */
    uint32_t text_count;
    const struct sta_hw_text *texts; /* in the order of their lines; the driver reads them as long as the image is loaded */
};

/* An accelerator. Its fields are to be read alone. */
struct sta_hw {
    struct sta_hw_bus bus;
    uint64_t hash;
    uint32_t version;
    uint32_t rows, groups, window, bus_bytes;
    struct sta_hw_image image; /* bytes = 0: none is loaded */
    uint32_t length;           /* tokens of an image's one text; 0 if it has several */
    int started;               /* 1: a program, with what lies in the image now */
    /* What the last error was about. */
    int bus_error;                /* STA_HW_BUS: what the bus's function returned */
    enum sta_hw_fault fault;      /* STA_HW_FAILED: why */
    uint32_t instruction;         /* STA_HW_FAILED: of which instruction */
    uint64_t expected, found;     /* other errors that compare two numbers */
};

/* Reads the next `count` bytes of an image; returns how many it got, fewer at the end or after an error; more are
 * refused (STA_HW_BAD_ARGUMENT). */
typedef size_t (*sta_hw_reader)(void *context, void *bytes, size_t count);

/* The hardware: what answers is an accelerator, of this driver's version, and of configuration `hash` (0 for any).
 * Changes nothing: a program that runs goes on, and sta_hw_reset() ends it. */
enum sta_hw_code sta_hw_open(struct sta_hw *dev, const struct sta_hw_bus *bus, uint64_t hash);

/* An image, whole, from memory, or from a reader by way of a buffer. Its checksum is compared, and `image` is refused
 * (STA_HW_BAD_ARGUMENT) where something that it says does not lie in the image. */
enum sta_hw_code sta_hw_load(struct sta_hw *dev, const struct sta_hw_image *image, const void *bytes, uint32_t count);
enum sta_hw_code sta_hw_load_from(struct sta_hw *dev, const struct sta_hw_image *image, sta_hw_reader read,
                                  void *context, void *buffer, uint32_t buffer_bytes);

/* What is in the memory is still the image as it was compiled: true after loading, and no more after input or a run. */
enum sta_hw_code sta_hw_check_memory(struct sta_hw *dev);

/* The input of all texts as it lies in the image (a part of a file of `sta-hw input`); or one text's, `count` values:
 * exactly its tokens times the channels, token after token. An image of one text takes any of up to its tokens, told
 * first: sta_hw_set_length() holds until it is called again or an image is loaded (0: an image of several texts, whose
 * lengths are its own). A shorter text's mean is to be divided by w n / N (docs/image.md), where more than its direction
 * counts. If it fails, no image is loaded, since the windows of a mean may be half written. */
enum sta_hw_code sta_hw_set_length(struct sta_hw *dev, uint32_t tokens);
enum sta_hw_code sta_hw_put_input(struct sta_hw *dev, const void *bytes, uint32_t count);
enum sta_hw_code sta_hw_put_text(struct sta_hw *dev, uint32_t text, const int16_t *values, uint32_t count);

/* A file of `sta-hw input` begins with 32 bytes, words of 32 bits, little-endian: magic, format, inputs, bytes of each,
 * the image's checksum, and three that are 0; the inputs follow, each a word, its tokens as sta_hw_set_length() takes
 * them, and then its bytes as sta_hw_put_input() does. */
#define STA_HW_INPUTS_MAGIC 0x49415453u /* the characters STAI */
#define STA_HW_INPUTS_FORMAT 2u
#define STA_HW_INPUTS_HEADER_BYTES 32

/* Whether such a file, by its first 32 bytes, is for the image that is loaded, and how many inputs it has. */
enum sta_hw_code sta_hw_check_inputs(struct sta_hw *dev, const void *header, uint32_t *inputs);

/* Start; `interrupt` is 1 to raise the interrupt line at the end. Then wait: by looking at the status at most `looks`
 * times, or for the interrupt. Both return STA_HW_FAILED when the hardware stopped the program, and
 * STA_HW_NOT_STARTED when there is none of this driver's, such as after an image, an input or a length was placed:
 * what the status then says is of the program before. */
enum sta_hw_code sta_hw_start(struct sta_hw *dev, int interrupt);
enum sta_hw_code sta_hw_poll(struct sta_hw *dev, uint32_t looks);
enum sta_hw_code sta_hw_wait(struct sta_hw *dev, uint32_t milliseconds);

/* A text's result: `count` is exactly as many values as there are: channels, or tokens times channels, token after
 * token. As sta_hw_poll() they tell a program that failed, and one that was not started. */
enum sta_hw_code sta_hw_get_pooled(struct sta_hw *dev, uint32_t text, int16_t *values, uint32_t count);
enum sta_hw_code sta_hw_get_outputs(struct sta_hw *dev, uint32_t text, int16_t *values, uint32_t count);

/* The counters of the last program, by enum sta_hw_counter; each begins at 0 again behind 2^32 - 1. */
enum sta_hw_code sta_hw_counters(struct sta_hw *dev, uint32_t values[STA_HW_COUNTER_COUNT]);

/* End whatever is under way, at most `looks` looks long; the image stays loaded, and what it holds is as it was left. */
enum sta_hw_code sta_hw_reset(struct sta_hw *dev, uint32_t looks);

/* Sentences, for any number. */
const char *sta_hw_sentence(enum sta_hw_code code);
const char *sta_hw_fault_sentence(enum sta_hw_fault fault);
const char *sta_hw_counter_sentence(enum sta_hw_counter counter);

/* The sentence of a code that a function of `dev` has just returned, with its numbers, ended by a zero byte and cut
 * where `text` is too short (NULL: of no bytes); returns the length that the whole has, as snprintf does. */
size_t sta_hw_explain(const struct sta_hw *dev, enum sta_hw_code code, char *text, size_t bytes);

/* The checksum of images: begin with 0, and go on with what the call before returned. */
uint32_t sta_hw_crc32(uint32_t crc, const void *bytes, size_t count);

#ifdef __cplusplus
}
#endif

#endif
