/* A driver for a thermometer and a heater: the registers are those of the board. */
#include <stdint.h>
#include <stdio.h>

#define ADC_CONTROL (*(volatile uint32_t *)0x40000000)
#define ADC_STATUS (*(volatile uint32_t *)0x40000004)
#define ADC_VALUE (*(volatile uint32_t *)0x40000008)
#define HEATER (*(volatile uint32_t *)0x40001000)

enum { START = 1, DONE = 1, FAULT = 2, ON = 1 };

static int read_temperature(int32_t *tenths) {
    ADC_CONTROL = START;
    while (!(ADC_STATUS & (DONE | FAULT)))
        continue;
    if (ADC_STATUS & FAULT)
        return -1;
    *tenths = (int32_t)(ADC_VALUE * 3300 / 4096) - 500;
    return 0;
}

int regulate(int32_t wanted_tenths) {
    int32_t tenths;
    if (read_temperature(&tenths)) {
        HEATER = 0;
        printf("the sensor has failed\n");
        return -1;
    }
    HEATER = tenths < wanted_tenths ? ON : 0;
    return 0;
}
