! Allocatable arrays and components, polymorphism, recursion, an index that is out of bounds.
!
! position: independent
! flags: -fcheck=bounds
module shapes
  implicit none
  type :: shape
    real, allocatable :: sides(:)
  contains
    procedure :: total => sum_of_sides
  end type
  type, extends(shape) :: square
  contains
    procedure :: total => four_times
  end type
contains
  real function sum_of_sides(this)
    class(shape), intent(in) :: this
    sum_of_sides = sum(this%sides)
  end function
  real function four_times(this)
    class(square), intent(in) :: this
    four_times = 4 * this%sides(1)
  end function
  recursive integer function fibonacci(n) result(value)
    integer, intent(in) :: n
    if (n < 2) then
      value = n
    else
      value = fibonacci(n - 1) + fibonacci(n - 2)
    end if
  end function
end module

program arrays
  use shapes
  implicit none
  class(shape), allocatable :: some
  integer, allocatable :: numbers(:), grid(:, :)
  integer :: i, place
  character(len=:), allocatable :: text
  allocate (square :: some)
  some%sides = [2.5]
  print '(f8.3)', some%total()
  numbers = [(i * i, i = 1, 10)]
  numbers = pack(numbers, mod(numbers, 2) == 0)
  print '(*(i5))', numbers, fibonacci(20)
  allocate (grid(3, 4), source=0)
  grid(2, :) = [1, 2, 3, 4]
  print *, matmul(grid, transpose(grid)), maxloc(grid)
  text = repeat('ab', 3)//'c'
  print *, len(text), index(text, 'c'), text
  place = size(numbers) + command_argument_count() + 1
  numbers(place) = 1
  print *, 'not reached'
end program
