"""The Makefile of the folder: this machine, and a Cortex-M4 under QEMU."""

from __future__ import annotations

_TEXT = """# make check: build for this machine and run the test vector.   make qemu: the same on an emulated Cortex-M4.
CC = gcc
CFLAGS = -std=c99 -O2 -Wall -Wextra -Wpedantic -Wconversion
# Tensors of several types share the arena one after another.
CFLAGS += -fno-strict-aliasing

ARM_CC = arm-none-eabi-gcc
ARM_CFLAGS = -std=c99 -O2 -mcpu=cortex-m4 -mthumb {floating_point} -fno-strict-aliasing -ffunction-sections
ARM_LDFLAGS = --specs=nano.specs --specs=nosys.specs -nostartfiles -T mps2_an386/board.ld -Wl,--gc-sections \\
    -Wl,--no-warn-rwx-segments -u _printf_float
QEMU = qemu-system-arm -M mps2-an386 -nographic -monitor none -semihosting-config enable=on,target=native \\
    -icount shift=0

SOURCES = model.c weights.c test_vector.c main.c
HEADERS = model.h weights.h test_vector.h

all: run

check: run
\t./run

run: $(SOURCES:.c=.o)
\t$(CC) $(CFLAGS) -o $@ $^ -lm

%.o: %.c $(HEADERS)
\t$(CC) $(CFLAGS) -c -o $@ $<

qemu: cortex_m4.elf
\t$(QEMU) -kernel $<

cortex_m4.elf: $(SOURCES:%.c=arm/%.o) arm/start.o
\t$(ARM_CC) $(ARM_CFLAGS) $(ARM_LDFLAGS) -o $@ $^ -lm

arm/%.o: %.c $(HEADERS)
\t@mkdir -p arm
\t$(ARM_CC) $(ARM_CFLAGS) -Imps2_an386 -DCODESIGN_PROBE='"probe.h"' \\
\t    -D{upper}_ARENA_ATTRIBUTE='__attribute__((section(".arena")))' -c -o $@ $<

arm/start.o: mps2_an386/start.c
\t@mkdir -p arm
\t$(ARM_CC) $(ARM_CFLAGS) -c -o $@ $<

clean:
\trm -rf run *.o arm cortex_m4.elf

.PHONY: all check qemu clean
"""


def makefile(prefix: str, *, floating_point: bool) -> str:
    """The Makefile for files of a prefix."""
    unit = "-mfloat-abi=hard -mfpu=fpv4-sp-d16" if floating_point else "-mfloat-abi=soft"
    return _TEXT.format(upper=prefix.upper(), floating_point=unit)
