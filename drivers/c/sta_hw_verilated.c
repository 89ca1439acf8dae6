/* The simulated accelerator; sta_hw_verilated.h says how. */
#include "sta_hw_verilated.h"

#include <dlfcn.h>
#include <string.h>

static int read_register(void *context, uint32_t offset, uint32_t *value) {
    struct sta_hw_verilated *model = context;
    const uint64_t answer = model->read(model->handle, &model->memory, offset);
    *value = (uint32_t)answer;
    return (int)(answer >> 32);
}

static int write_register(void *context, uint32_t offset, uint32_t value) {
    struct sta_hw_verilated *model = context;
    return (int)model->write(model->handle, &model->memory, offset, value);
}

static int put(void *context, uint32_t offset, const void *bytes, uint32_t count) {
    const struct sta_hw_verilated *model = context;
    memcpy(model->memory.bytes + offset, bytes, count);
    return 0;
}

static int get(void *context, uint32_t offset, void *bytes, uint32_t count) {
    const struct sta_hw_verilated *model = context;
    memcpy(bytes, model->memory.bytes + offset, count);
    return 0;
}

static int wait(void *context, uint32_t milliseconds) {
    struct sta_hw_verilated *model = context;
    const int64_t cycles = (int64_t)milliseconds * model->cycles_per_millisecond;
    const int64_t gone = model->run(model->handle, &model->memory, NULL, cycles, cycles);
    return gone >= 0 && gone < cycles ? STA_HW_RAISED : STA_HW_TIMED_OUT;
}

static void pause_a_while(void *context) {
    struct sta_hw_verilated *model = context;
    model->run(model->handle, &model->memory, NULL, model->cycles_per_pause, model->cycles_per_pause);
}

/* C has no cast from an object's address, which dlsym gives, to a function's; POSIX says that the bytes are alike. */
static int find(const struct sta_hw_verilated *model, const char *name, void *function) {
    void *const found = dlsym(model->library, name);
    memcpy(function, &found, sizeof found);
    return found != NULL;
}

const char *sta_hw_verilated_open(struct sta_hw_verilated *model, struct sta_hw_bus *bus, const char *library,
                                  uint8_t *memory, uint32_t bytes, uint64_t address) {
    void *(*open)(void);
    if (!model || !bus || !library || !memory)
        return "an argument is missing";
    memset(model, 0, sizeof *model);
    model->library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!model->library)
        return dlerror();
    if (!find(model, "accelerator_open", &open) || !find(model, "accelerator_close", &model->close) ||
        !find(model, "accelerator_reset", &model->reset) || !find(model, "accelerator_write", &model->write) ||
        !find(model, "accelerator_read", &model->read) || !find(model, "accelerator_run", &model->run)) {
        dlclose(model->library);
        memset(model, 0, sizeof *model);
        return "the library is none of a simulated accelerator";
    }
    model->memory.bytes = memory;
    model->memory.base = address;
    model->memory.size = bytes;
    model->memory.latency = 50;
    model->memory.beats_per_256 = 256;
    model->memory.seed = 1;
    model->cycles_per_millisecond = 1000;
    model->cycles_per_pause = 100;
    model->handle = open();
    model->reset(model->handle, &model->memory);
    bus->context = model;
    bus->memory_address = address;
    bus->memory_bytes = bytes;
    bus->read = read_register;
    bus->write = write_register;
    bus->put = put;
    bus->get = get;
    bus->wait = wait;
    bus->pause = pause_a_while;
    return NULL;
}

void sta_hw_verilated_close(struct sta_hw_verilated *model) {
    if (!model->library)
        return;
    model->close(model->handle);
    dlclose(model->library);
    memset(model, 0, sizeof *model);
}
