// The D run time finds the image of its caller, whose segments are roots and whose modules it lists.
import core.memory;
import core.stdc.stdio;

class Node { int value; Node next; }

__gshared Node[100] nodes;
__gshared int[3] values = [1, 2, 3];

int main()
{
    foreach (ref node; nodes) { node = new Node; node.value = 7; }
    foreach (each; 0 .. 200_000)
    {
        auto node = new Node;
        node.value = each;
        if (each % 50_000 == 0) GC.collect();
    }
    int bad;
    foreach (node; nodes) bad += node.value != 7;
    foreach (m; ModuleInfo) if (m.name == "objects") printf("module objects\n");
    try throw new Exception("thrown"); catch (Exception e) printf("%s\n", &e.msg[0]);
    printf("%d bad\n", bad);
    return bad;
}
