/* Embeds what `sta-hw input` wrote, on a simulated accelerator or under Linux.
 *
 * Compiled for one model: its header is MODEL_HEADER, and MODEL the name that the header's macros begin with.
 *
 *     embed --verilated LIBRARY IMAGE INPUTS OUTPUT
 *     embed --uio uio0 IMAGE INPUTS OUTPUT
 *
 * OUTPUT gets the embeddings, each of length 1, as 32-bit floats one after the other.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sta_hw.h"
#include "sta_hw_file.h"
#include "sta_hw_linux.h"
#include "sta_hw_verilated.h"

#include MODEL_HEADER

#define JOIN(a, b) a##b
#define OF(model, name) JOIN(model, name)
enum {
    CHANNELS = OF(MODEL, _POOLED_CHANNELS),
    INPUT_BYTES = OF(MODEL, _INPUT_BYTES),
    IMAGE_BYTES = OF(MODEL, _IMAGE_BYTES)
};
#define ADDRESS 0x80000000u

static const struct sta_hw_image image = OF(MODEL, _IMAGE);
static uint8_t simulated_memory[IMAGE_BYTES]; /* of the simulation alone */
static uint8_t input[INPUT_BYTES];
static int16_t pooled[CHANNELS];
static float embedding[CHANNELS];

static int complain(const struct sta_hw *dev, enum sta_hw_code code, const char *doing) {
    char sentence[256];
    sta_hw_explain(dev, code, sentence, sizeof sentence);
    fprintf(stderr, "%s: %s\n", doing, sentence);
    return 1;
}

/* The mean over tokens is in `pooled` up to a factor, which the length of 1 takes out. */
static void normalize(void) {
    double sum = 0;
    int i;
    for (i = 0; i < CHANNELS; i++)
        sum += (double)pooled[i] * pooled[i];
    for (i = 0; i < CHANNELS; i++)
        embedding[i] = sum > 0 ? (float)(pooled[i] / sqrt(sum)) : 0.0f;
}

static int embed(struct sta_hw *dev, FILE *inputs, FILE *output) {
    uint8_t header[STA_HW_INPUTS_HEADER_BYTES], word[4];
    uint32_t counters[STA_HW_COUNTER_COUNT], count, i, text, tokens;
    enum sta_hw_code code;
    if (fread(header, sizeof header, 1, inputs) != 1) {
        fprintf(stderr, "the file of inputs is too short.\n");
        return 1;
    }
    if ((code = sta_hw_check_inputs(dev, header, &count)) != STA_HW_OK)
        return complain(dev, code, "reading inputs");
    for (i = 0; i < count; i++) {
        if (fread(word, sizeof word, 1, inputs) != 1 || fread(input, sizeof input, 1, inputs) != 1) {
            fprintf(stderr, "the file of inputs ends before input %lu.\n", (unsigned long)i);
            return 1;
        }
        tokens = word[0] | (uint32_t)word[1] << 8 | (uint32_t)word[2] << 16 | (uint32_t)word[3] << 24;
        if ((code = sta_hw_set_length(dev, tokens)) != STA_HW_OK)
            return complain(dev, code, "telling the length");
        if ((code = sta_hw_put_input(dev, input, sizeof input)) != STA_HW_OK)
            return complain(dev, code, "placing the input");
        if ((code = sta_hw_start(dev, 1)) != STA_HW_OK)
            return complain(dev, code, "starting");
        if ((code = sta_hw_wait(dev, 10000)) != STA_HW_OK) {
            /* Whatever happened, the next input has a clean start. */
            complain(dev, code, "running");
            if ((code = sta_hw_reset(dev, 1000000)) != STA_HW_OK)
                complain(dev, code, "resetting");
            return 1;
        }
        if ((code = sta_hw_counters(dev, counters)) != STA_HW_OK)
            return complain(dev, code, "reading the counters");
        printf("run %lu: %lu cycles\n", (unsigned long)i, (unsigned long)counters[STA_HW_COUNTER_CYCLES]);
        for (text = 0; text < image.text_count; text++) {
            if ((code = sta_hw_get_pooled(dev, text, pooled, CHANNELS)) != STA_HW_OK)
                return complain(dev, code, "reading the result");
            normalize();
            printf("embedding %.6f %.6f %.6f ...\n", embedding[0], embedding[1], embedding[2]);
            if (fwrite(embedding, sizeof embedding, 1, output) != 1) {
                fprintf(stderr, "the output cannot be written.\n");
                return 1;
            }
        }
    }
    if (fgetc(inputs) != EOF) {
        fprintf(stderr, "the file of inputs goes on behind its %lu inputs.\n", (unsigned long)count);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv) {
    struct sta_hw_verilated model;
    struct sta_hw_linux linux_bus;
    struct sta_hw_linux_problem problem;
    struct sta_hw_bus bus;
    struct sta_hw dev;
    enum sta_hw_code code;
    FILE *inputs, *output;
    int simulated, status = 1;
    if (argc != 6 || (strcmp(argv[1], "--verilated") && strcmp(argv[1], "--uio"))) {
        fprintf(stderr, "usage: embed (--verilated LIBRARY | --uio DEVICE) IMAGE INPUTS OUTPUT\n");
        return 2;
    }
    simulated = !strcmp(argv[1], "--verilated");
    if (simulated) {
        const char *wrong = sta_hw_verilated_open(&model, &bus, argv[2], simulated_memory, IMAGE_BYTES, ADDRESS);
        if (wrong) {
            fprintf(stderr, "%s\n", wrong);
            return 1;
        }
    } else if (sta_hw_linux_uio(&linux_bus, &bus, argv[2], &problem)) {
        fprintf(stderr, "%s: %s\n", problem.doing, strerror(problem.error));
        return 1;
    }
    inputs = fopen(argv[4], "rb");
    output = inputs ? fopen(argv[5], "wb") : NULL;
    if (!output)
        fprintf(stderr, "%s cannot be opened.\n", inputs ? argv[5] : argv[4]);
    else if ((code = sta_hw_open(&dev, &bus, image.hash)) != STA_HW_OK)
        complain(&dev, code, "opening");
    else if ((code = sta_hw_load_file(&dev, &image, argv[3])) != STA_HW_OK)
        complain(&dev, code, "loading");
    else
        status = embed(&dev, inputs, output);
    if (output && fclose(output)) {
        fprintf(stderr, "%s cannot be written.\n", argv[5]);
        status = 1;
    }
    if (inputs)
        fclose(inputs);
    if (simulated)
        sta_hw_verilated_close(&model);
    else
        sta_hw_linux_close(&linux_bus);
    return status;
}
