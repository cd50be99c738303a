! Formatted and list-directed output, internal and scratch files, reported errors.
!
! position: independent
program input_output
  implicit none
  integer :: i, status, unit
  real(8) :: x
  character(len=40) :: line
  complex :: z = (1.0, -2.0)
  write (*, '(a, i5, f10.4, es12.3)') 'formatted', 42, 3.14159d0, 1.0d-7
  print *, 'list', 1, .true., 2.5, z
  write (line, '(3i4)') (i * i, i = 1, 3)
  print '(a)', trim(line)
  read (line, *) i
  open (newunit=unit, status='scratch', action='readwrite')
  do i = 1, 5
    write (unit, *) i, sqrt(real(i, 8))
  end do
  rewind (unit)
  x = 0
  do
    block
      real(8) :: y
      read (unit, *, iostat=status) i, y
      if (status /= 0) exit
      x = x + y
    end block
  end do
  close (unit)
  print '(f12.8, l2)', x, status < 0
  open (newunit=unit, file='/no such file', status='old', iostat=status)
  print *, status /= 0
  stop 3
end program
