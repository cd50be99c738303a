use strict;
use warnings;
use Data::Dumper;
use Digest::MD5 qw(md5_hex);
use List::Util qw(first sum);
use POSIX qw(floor);
use Storable qw(dclone);

my %counts = map { $_ => length } qw(one three);
$Data::Dumper::Sortkeys = 1;
print Dumper(dclone(\%counts));
print join(" ", sum(1 .. 10), (first { $_ > 3 } 1 .. 9), floor(3.7), md5_hex("x"), "@ARGV"), "\n";
warn "a warning";
eval { die { code => 5 } };
print "caught $@->{code}\n";
die "the end\n";
