/* Instructions executed and stack used between PROBE_BEGIN and PROBE_END.

   The board's 32-bit timer runs at 25 MHz. Under `qemu -icount shift=0` an instruction takes one nanosecond of virtual
   time, so a tick of the timer is exactly 40 instructions. The stack is painted first; what lost its paint was used. */
#ifndef PROBE_H
#define PROBE_H

#include <stdint.h>
#include <stdio.h>

#define INSTRUCTIONS_PER_TICK 40U
#define PAINT 0xC0DE5160U

extern uint32_t stack_bottom[];

typedef struct {
    volatile uint32_t control;
    volatile uint32_t value;
    volatile uint32_t reload;
} probe_timer_t;

#define PROBE_TIMER ((probe_timer_t *)0x40000000)

static uint32_t *probe_here;

static inline void probe_paint(void)
{
    uint32_t mark = 0U;

    probe_here = &mark - 16; /* below this frame */
    for (uint32_t *at = stack_bottom; at < probe_here; ++at) {
        *at = PAINT;
    }
}

static inline void probe_report(uint32_t ticks)
{
    uint32_t *used = stack_bottom;

    while ((used < probe_here) && (*used == PAINT)) {
        ++used;
    }
    (void)printf("ticks: %lu\n", (unsigned long)ticks);
    (void)printf("stack bytes: %lu\n", (unsigned long)((uintptr_t)probe_here - (uintptr_t)used));
}

#define PROBE_BEGIN()                       \
    probe_paint();                          \
    PROBE_TIMER->control = 0U;              \
    PROBE_TIMER->reload = 0xFFFFFFFFU;      \
    PROBE_TIMER->value = 0xFFFFFFFFU;       \
    PROBE_TIMER->control = 1U

#define PROBE_END()                                               \
    do {                                                          \
        const uint32_t ticks = 0xFFFFFFFFU - PROBE_TIMER->value;  \
        PROBE_TIMER->control = 0U;                                \
        probe_report(ticks);                                      \
    } while (0)

#endif
