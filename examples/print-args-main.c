/* Prints its arguments, of which argv[0] is the first, with a function of another object. */

void print_args(int count, char *const *arguments);

int main(int argc, char **argv) {
    print_args(argc, argv);
    return 0;
}
