/* Driver of a barometer on an I2C bus: registers, a checksum, retries. */
#include <stdint.h>

/* Functions of the board's library. */
int i2c_read(uint8_t device, uint8_t reg, uint8_t *data, int size);
void delay_ms(int ms);

enum { DEVICE = 0x76, REG_PRESSURE = 0xf7, RETRIES = 3 };

static int failures;
static int32_t offset_pa = 100;

static uint8_t crc8(const uint8_t *data, int size) {
    uint8_t crc = 0xff;
    for (int i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 0x80 ? (uint8_t)(crc << 1 ^ 0x31) : (uint8_t)(crc << 1);
    }
    return crc;
}

/* Three bytes of pressure and their checksum; -1 if the bus or the checksum fails. */
static int read_raw(uint32_t *raw) {
    uint8_t data[4];
    if (i2c_read(DEVICE, REG_PRESSURE, data, sizeof data) != 0 || crc8(data, 3) != data[3])
        return -1;
    *raw = (uint32_t)data[0] << 16 | (uint32_t)data[1] << 8 | data[2];
    return 0;
}

/* Pressure in pascals, or -1 after the last retry. */
int32_t barometer_read(void) {
    uint32_t raw;
    for (int i = 0; i < RETRIES; i++) {
        if (read_raw(&raw) == 0)
            return (int32_t)(raw >> 4) + offset_pa;
        failures++;
        delay_ms(10);
    }
    return -1;
}
