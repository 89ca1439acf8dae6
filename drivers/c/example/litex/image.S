/* The image and its inputs, as files that are found by -I. */
    .section .rodata
    .global image_bytes
    .balign 4
image_bytes:
    .incbin "image.bin"
    .global inputs
    .balign 4
inputs:
    .incbin "image.inputs"
