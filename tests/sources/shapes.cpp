// COMDAT groups, virtual tables, a guarded static, exceptions.
#include <stdexcept>
#include <string>

struct Shape {
    virtual ~Shape();
    virtual double area() const = 0;
};

Shape::~Shape() {}

template <class T> struct Box : Shape {
    T width, height;
    Box(T w, T h) : width(w), height(h) {}
    double area() const override {
        if (width < 0) throw std::runtime_error("negative");
        return width * height;
    }
};

inline int counted() {
    static int n;
    return ++n;
}

int measure(double width, double height) {
    try {
        Box<double> wide(width, height);
        Box<float> narrow(width, height);
        return int(wide.area() + narrow.area()) + counted();
    } catch (const std::exception &error) {
        return -int(std::string(error.what()).size());
    }
}
