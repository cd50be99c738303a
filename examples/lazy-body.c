/* The function that lazy-caller.c calls. */

int area(int width, int height)
{
    return width * height;
}
