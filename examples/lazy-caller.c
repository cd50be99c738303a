/* Calls a function that lazy.py links when it is called. */

int area(int width, int height);

int room(void)
{
    return area(4, 5);
}
