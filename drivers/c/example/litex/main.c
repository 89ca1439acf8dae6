/* A program without an operating system for a LiteX SoC: starts the SDRAM, loads the image that is compiled in, runs
 * its inputs on the interrupt (where the CPU has one), and says checksums of what comes on the serial line. boards/firmware.py compiles it.
 *
 * MODEL_HEADER is the header of the image, and MODEL the name that its macros begin with; image.S has the bytes.
 */
#include <stdint.h>

#include <generated/csr.h>
#include <generated/mem.h>
#include <irq.h>
#include <system.h>
#ifdef CSR_SDRAM_BASE
#include <generated/sdram_phy.h>
#endif

#include "sta_hw.h"
#include "sta_hw_mapped.h"

#include MODEL_HEADER

#define JOIN(a, b) a##b
#define OF(model, name) JOIN(model, name)
enum { INPUT_BYTES = OF(MODEL, _INPUT_BYTES), IMAGE_BYTES = OF(MODEL, _IMAGE_BYTES) };
#define RESULT_BYTES 0x8000u /* at the end of the memory, for what is read of a text */
#define WAIT_MILLISECONDS 10000
#define LOOKS 10000000 /* at the status, where the CPU has no interrupts */

extern const uint8_t image_bytes[], inputs[];

static const struct sta_hw_image image = OF(MODEL, _IMAGE);
static struct sta_hw_mapped mapped;
static struct sta_hw dev;
static volatile uint32_t interrupts;

/* Compilers call these themselves, and there is no C library here. */
void *memcpy(void *to, const void *from, size_t count);
void *memcpy(void *to, const void *from, size_t count) {
    uint8_t *next = to;
    const uint8_t *source = from;
    while (count--)
        *next++ = *source++;
    return to;
}

void *memset(void *to, int value, size_t count);
void *memset(void *to, int value, size_t count) {
    uint8_t *next = to;
    while (count--)
        *next++ = (uint8_t)value;
    return to;
}

static void say(const char *text) {
    for (; *text; text++) {
        while (uart_txfull_read())
            ;
        uart_rxtx_write((uint8_t)*text);
    }
}

static void say_number(const char *before, uint32_t value, const char *behind) {
    char digits[11];
    char *next = digits + sizeof digits - 1;
    *next = 0;
    do
        *--next = (char)('0' + value % 10);
    while (value /= 10);
    say(before);
    say(next);
    say(behind);
}

static void say_checksum(const char *before, uint32_t value) {
    char text[12];
    int i;
    text[0] = '0';
    text[1] = 'x';
    for (i = 0; i < 8; i++)
        text[2 + i] = "0123456789abcdef"[value >> (28 - 4 * i) & 15];
    text[10] = '\n';
    text[11] = 0;
    say(before);
    say(text);
}

/* Called by crt0 of LiteX's CPUs. */
void isr(void);

#ifdef STA_HW_INTERRUPT
void isr(void) {
    if (irq_pending() & irq_getmask() & 1u << STA_HW_INTERRUPT) {
        sta_hw_mapped_interrupt(&mapped);
        interrupts++;
    }
}

/* About a millisecond, or until there is an interrupt. */
static void idle(void) {
    uint32_t turns = CONFIG_CLOCK_FREQUENCY / 1000 / 16 + 1;
    while (!mapped.raised && turns--)
        ;
}

static void start_interrupts(void) {
    mapped.idle = idle;
    irq_setmask(irq_getmask() | 1u << STA_HW_INTERRUPT);
    irq_setie(1);
}

static enum sta_hw_code run_once(void) {
    const enum sta_hw_code code = sta_hw_start(&dev, 1);
    return code == STA_HW_OK ? sta_hw_wait(&dev, WAIT_MILLISECONDS) : code;
}
#else
void isr(void) {
}

static void start_interrupts(void) {
}

static enum sta_hw_code run_once(void) {
    const enum sta_hw_code code = sta_hw_start(&dev, 0);
    return code == STA_HW_OK ? sta_hw_poll(&dev, LOOKS) : code;
}
#endif

/* What the CPU holds in its cache may be older than what the accelerator wrote. LiteX's CPUs write through theirs. */
static void forget(volatile uint8_t *start, uint32_t bytes) {
    (void)start;
    (void)bytes;
    flush_cpu_dcache();
}

static void start_memory(void) {
#ifdef CSR_SDRAM_BASE
    init_sequence();
    sdram_dfii_control_write(DFII_CONTROL_SEL);
#endif
}

static int failed(const char *doing, enum sta_hw_code code) {
    char sentence[200];
    sta_hw_explain(&dev, code, sentence, sizeof sentence);
    say(doing);
    say(": ");
    say(sentence);
    say("\nfailed\n");
    return 1;
}

#define TRY(doing, call) \
    do { \
        const enum sta_hw_code code = (call); \
        if (code != STA_HW_OK) \
            return failed(doing, code); \
    } while (0)

static uint32_t word_of(const uint8_t *bytes) {
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* A text's result as 16-bit values, one token after the other; the pooled ones alone, where the image has them. */
static int add_result(uint32_t text, int16_t *values, uint32_t *crc) {
    uint32_t count = image.pooled.channels;
    if (count) {
        TRY("reading a result", count * 2 <= RESULT_BYTES ? sta_hw_get_pooled(&dev, text, values, count)
                                                            : STA_HW_NO_ROOM);
    } else {
        count = image.outputs.channels * (image.text_count == 1 ? dev.length : image.texts[text].tokens);
        TRY("reading a result", count * 2 <= RESULT_BYTES ? sta_hw_get_outputs(&dev, text, values, count)
                                                            : STA_HW_NO_ROOM);
    }
    *crc = sta_hw_crc32(*crc, values, count * 2);
    return 0;
}

static int run(void) {
    int16_t *const values = (int16_t *)(MAIN_RAM_BASE + MAIN_RAM_SIZE - RESULT_BYTES);
    const volatile uint8_t *const memory = (const volatile uint8_t *)MAIN_RAM_BASE;
    uint32_t counters[STA_HW_COUNTER_COUNT], count, number, text;
    struct sta_hw_bus bus;
    mapped.registers = (volatile uint32_t *)STA_HW_BASE;
    mapped.memory = (volatile uint8_t *)MAIN_RAM_BASE;
    mapped.invalidate = forget;
    start_interrupts();
    sta_hw_mapped_bus(&bus, &mapped, MAIN_RAM_BASE, MAIN_RAM_SIZE - RESULT_BYTES);
    TRY("opening", sta_hw_open(&dev, &bus, image.hash));
    say_number("accelerator: ", dev.rows, " x ");
    say_number("", dev.groups, "\n");
    TRY("loading", sta_hw_load(&dev, &image, image_bytes, IMAGE_BYTES));
    say_number("image: ", IMAGE_BYTES, " bytes\n");
    TRY("reading inputs", sta_hw_check_inputs(&dev, inputs, &count));
    for (number = 0; number < count; number++) {
        /* Of each input its length, a word, and its bytes. */
        const uint8_t *input = inputs + STA_HW_INPUTS_HEADER_BYTES + number * (4 + INPUT_BYTES);
        uint32_t crc = 0;
        TRY("telling the length", sta_hw_set_length(&dev, word_of(input)));
        TRY("placing an input", sta_hw_put_input(&dev, input + 4, INPUT_BYTES));
        TRY("running", run_once());
        TRY("reading counters", sta_hw_counters(&dev, counters));
        say_number("run ", number, ": ");
        say_number("", counters[STA_HW_COUNTER_CYCLES], " cycles, ");
        say_number("", interrupts, " interrupts\n");
        for (text = 0; text < image.text_count; text++)
            if (add_result(text, values, &crc))
                return 1;
        say_checksum("result: ", crc);
        forget(mapped.memory, IMAGE_BYTES);
        say_checksum("memory: ", sta_hw_crc32(0, (const void *)(uintptr_t)memory, IMAGE_BYTES));
    }
    say("done\n");
    return 0;
}

int main(void);
int main(void) {
    say("STA-HW in a LiteX SoC\n");
    start_memory();
    run();
    for (;;)
        ;
}
