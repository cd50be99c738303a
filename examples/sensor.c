/* Calls a function that the caller implements. */
int read_sensor(int channel);

int highest(int channels) {
    int result = 0;
    for (int channel = 0; channel < channels; channel++) {
        int value = read_sensor(channel);
        if (value > result)
            result = value;
    }
    return result;
}
