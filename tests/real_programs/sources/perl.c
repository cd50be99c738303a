/* An embedded Perl, whose modules are shared libraries that refer to the interpreter. */
#include <EXTERN.h>
#include <perl.h>

EXTERN_C void boot_DynaLoader(pTHX_ CV *);

static void initialize_modules(pTHX) {
  newXS("DynaLoader::boot_DynaLoader", boot_DynaLoader, __FILE__);
}

int main(int argc, char **argv, char **environment) {
  PERL_SYS_INIT3(&argc, &argv, &environment);
  PerlInterpreter *my_perl = perl_alloc();
  perl_construct(my_perl);
  PL_exit_flags |= PERL_EXIT_DESTRUCT_END;
  int status = perl_parse(my_perl, initialize_modules, argc, argv, 0);
  if (!status)
    status = perl_run(my_perl);
  perl_destruct(my_perl);
  perl_free(my_perl);
  PERL_SYS_TERM();
  return status;
}
