/* Images from files; piece by piece, so that an image may be larger than what memory the host has left. */
#include "sta_hw_file.h"

#include <stdio.h>

static size_t read_file(void *context, void *bytes, size_t count) { return fread(bytes, 1, count, context); }

enum sta_hw_code sta_hw_load_file(struct sta_hw *dev, const struct sta_hw_image *image, const char *path) {
    char buffer[4096];
    enum sta_hw_code code;
    FILE *file;
    if (!path)
        return STA_HW_BAD_ARGUMENT;
    file = fopen(path, "rb");
    if (!file)
        return STA_HW_CANNOT_READ;
    code = sta_hw_load_from(dev, image, read_file, file, buffer, sizeof buffer);
    if (ferror(file))
        code = STA_HW_CANNOT_READ;
    fclose(file);
    return code;
}
