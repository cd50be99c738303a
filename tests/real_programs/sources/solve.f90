program solve
  use omp_lib
  implicit none
  integer, parameter :: n = 120
  real(8) :: a(n,n), b(n), s
  integer :: ipiv(n), info, i, j
  !$omp parallel do private(i)
  do j = 1, n
    do i = 1, n
      a(i,j) = 1d0 / (i + j) + merge(3d0, 0d0, i == j)
    end do
  end do
  b = 1d0
  call dgesv(n, 1, a, n, ipiv, b, n, info)
  s = sum(b)
  print '(a,i0,1x,f18.12)', 'info ', info, s
  call apply(twice)
contains
  real(8) function twice(x)
    real(8), intent(in) :: x
    twice = 2 * x + n
  end function
  subroutine apply(f)
    interface
      real(8) function f(x)
        real(8), intent(in) :: x
      end function
    end interface
    print '(f8.2)', f(1.5d0)
  end subroutine
end program
