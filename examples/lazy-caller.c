/* Calls a function that lazy.py links on its first call. */

int area(int width, int height);

int room(void)
{
    return area(4, 5);
}
