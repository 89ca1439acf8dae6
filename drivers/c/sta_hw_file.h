/* Images from files, for systems with a C library. */
#ifndef STA_HW_FILE_H
#define STA_HW_FILE_H

#include "sta_hw.h"

#ifdef __cplusplus
extern "C" {
#endif

enum sta_hw_code sta_hw_load_file(struct sta_hw *dev, const struct sta_hw_image *image, const char *path);

#ifdef __cplusplus
}
#endif

#endif
