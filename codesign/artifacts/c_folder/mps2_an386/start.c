/* Start-up of a Cortex-M4 on the board MPS2 AN386 (as QEMU emulates it), with text and exit code by semihosting. */
#include <stdint.h>

#include "probe.h"

extern uint32_t stack_top[];
extern uint32_t data_load[];
extern uint32_t data_start[];
extern uint32_t data_end[];
extern uint32_t bss_start[];
extern uint32_t bss_end[];
extern int main(void);

void start(void);
int _write(int file, const char *text, int length);
void _exit(int code);

#define SYS_WRITEC 0x03
#define SYS_EXIT_EXTENDED 0x20
#define EXITED_NORMALLY 0x20026U

static int32_t semihost(int32_t operation, const void *argument)
{
    register int32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;

    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

int _write(int file, const char *text, int length)
{
    (void)file;
    for (int at = 0; at < length; ++at) {
        (void)semihost(SYS_WRITEC, &text[at]);
    }
    return length;
}

void _exit(int code)
{
    const uint32_t why[2] = {EXITED_NORMALLY, (uint32_t)code};

    (void)semihost(SYS_EXIT_EXTENDED, why);
    for (;;) {
    }
}

static void fault(void)
{
    static const char text[] = "fault\n";

    (void)_write(1, text, (int)sizeof(text) - 1);
    _exit(2);
}

void start(void)
{
    const uint32_t *from = data_load;

    *(volatile uint32_t *)0xE000ED88 |= 0xF00000U; /* the floating-point unit on */
    __asm__ volatile("dsb\n isb");
    for (uint32_t *to = data_start; to < data_end; ++to) {
        *to = *from++;
    }
    for (uint32_t *to = bss_start; to < bss_end; ++to) {
        *to = 0U;
    }
    _exit(main());
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, (const void *)start, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault,
};
