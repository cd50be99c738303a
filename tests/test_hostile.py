"""Hostile input."""
from __future__ import annotations
from dataclasses import dataclass
from functools import cache
from pathlib import Path
import subprocess, tempfile

from tests.mutations import Region, archive_regions, elf_regions
from tests.toolchain import compile_c, require, run, zig_command

C = r"""
#include <stddef.h>
extern int puts(const char *);
extern void *malloc(size_t);
extern int errno_like;
int common_array[100];
static int counter;
static const char *const names[] = {"zero", "one", "two", "three"};
__attribute__((weak)) int weak_hook(int x) { return x + 1; }
extern int missing_hook(int) __attribute__((weak));
__attribute__((visibility("hidden"))) int hidden_value = 7;
struct node { struct node *next; int value; };
static struct node last = {0, 1}, first = {&last, 2};
__attribute__((section("custom"))) int in_custom = 3;
extern int __start_custom[], __stop_custom[];
int pick(int n) {
    switch (n) {
    case 0: return puts(names[0]);
    case 1: return counter++;
    case 2: return weak_hook(hidden_value);
    case 3: return missing_hook ? missing_hook(n) : errno_like;
    case 4: return (int)(__stop_custom - __start_custom);
    case 5: return common_array[n] + in_custom;
    default: return first.next->value;
    }
}
static int dead(int n) { return n * pick(n); }
int (*table[])(int) = {pick, weak_hook};
void *make(void) { struct node *made = malloc(sizeof *made); made->next = &first; return made; }
double scale(double x) { return x * 2.5; }
"""
CXX = r"""
#include <stdexcept>
#include <string>
struct Shape { virtual ~Shape(); virtual double area() const = 0; };
Shape::~Shape() {}
template <class T> struct Box : Shape {
    T w, h;
    Box(T w, T h) : w(w), h(h) {}
    double area() const override { if (w < 0) throw std::runtime_error("negative"); return w * h; }
};
inline int counted() { static int n; return ++n; }
int measure(double w, double h) {
    try {
        Box<double> d(w, h);
        Box<float> f(w, h);
        return int(d.area() + f.area()) + counted();
    } catch (const std::exception &e) {
        return -int(std::string(e.what()).size());
    }
}
"""
@dataclass(frozen=True)
class Case:
    data: bytes
    rest: tuple
    archive: bool=False
    def regions(self): return archive_regions(self.data) if self.archive else elf_regions(self.data)

def make_inputs():
    r={}
    r['c']=Case(compile_c(C,'gcc',['-g','-O1','-fcommon']).read_bytes(),())
    r['cxx']=Case(compile_c(CXX,'gcc',['-O1','-fPIC'],suffix='.cpp').read_bytes(),())
    from jitlink.formats.archive import Archive
    a=require('liblua5.4.a').read_bytes()
    ms={m.name:m for m in Archive(a,'x').members()}
    r['lua']=Case(bytes(ms['ldo.o'].data),())
    r['crel']=Case(compile_c(CXX,'clang',['-g1','-gz=zstd','-O1','-ffunction-sections','-Wa,--allow-experimental-crel,--crel'],suffix='.cpp').read_bytes(),())
    d=Path('/tmp/h2/ar'); d.mkdir(exist_ok=True)
    (d/'one.o').write_bytes(compile_c('int one(void){return 1;}').read_bytes())
    (d/'a_very_long_member_name.o').write_bytes(compile_c('int two(void){return 2;}').read_bytes())
    (d/'x.a').unlink(missing_ok=True)
    run([*zig_command('ar'),'rc','x.a','one.o','a_very_long_member_name.o'],cwd=d)
    main=compile_c('int one(void),two(void);int f(void){return one()+two();}').read_bytes()
    r['archive']=Case((d/'x.a').read_bytes(),(main,),True)
    return r
