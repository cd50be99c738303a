/* Prints its arguments with a function of another object. */

void print_args(int count, char *const *arguments);

int main(int argc, char **argv) {
    print_args(argc - 1, argv + 1);
    return 0;
}
