# nano: a whole operating system in one sector, for tests that need a real guest in 0.3 s.
#
# It speaks on the first serial port and on the screen. At start it counts its boots in sector 1
# of its disk and says "nano: boots=N". Then it echoes what is typed; at Enter it says
# "keys=N", a count that lives in memory alone: whoever sees it go on has seen memory survive.
#
#   as --32 nano.S -o nano.o && ld -m elf_i386 -Ttext 0x7c00 --oformat binary nano.o -o nano.img
#
# nano.img is committed; a test of the crate `vmm` assembles this file and compares.

        .code16
        .globl  _start
        .set    sector, 0x8000          # where sector 1 is read to
        .set    boots, sector + 4
_start:
        cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp
        ljmp    $0, $main               # some firmware arrives with cs = 0x07c0
main:
        sti
        movb    %dl, drive
        movw    $0x00e3, %ax            # serial: 9600 baud, 8 bits, no parity, 1 stop bit
        xorw    %dx, %dx
        int     $0x14

        movb    $0x42, %ah              # read sector 1
        call    disk
        movw    $sector, %di
        cmpl    $0x6f6e616e, (%di)      # "nano": counted before
        je      count
        movl    $0x6f6e616e, (%di)
        movl    $0, 4(%di)
count:
        incl    4(%di)
        movb    $0x43, %ah              # write sector 1
        call    disk
        movw    $hello, %si
        movl    boots, %eax
        call    say
prompt:
        movw    $ready, %si
        call    puts
listen:
        movw    $0x0300, %ax            # serial status
        xorw    %dx, %dx
        int     $0x14
        testb   $1, %ah
        jz      rest
        movw    $0x0200, %ax            # take one byte
        xorw    %dx, %dx
        int     $0x14
        cmpb    $'\r', %al
        je      enter
        incl    keys
        call    putc
        jmp     listen
rest:
        hlt                             # until the next timer tick, 55 ms away
        jmp     listen
enter:
        movw    $typed, %si
        movl    keys, %eax
        call    say
        jmp     prompt

# the text at si, then eax in decimal
say:
        pushl   %eax
        call    puts
        popl    %eax
        movl    $10, %ebx
        xorw    %cx, %cx
digit:
        xorl    %edx, %edx
        divl    %ebx
        pushw   %dx
        incw    %cx
        testl   %eax, %eax
        jnz     digit
show:
        popw    %ax
        addb    $'0', %al
        call    putc
        loop    show
        ret

disk:
        movb    drive, %dl
        movw    $packet, %si
        xorb    %al, %al
        int     $0x13
        jc      broken
        ret
broken:
        movw    $failed, %si
        call    puts
        cli
        hlt

puts:
        lodsb
        testb   %al, %al
        jz      done
        call    putc
        jmp     puts
putc:
        pusha
        movb    $0x0e, %ah              # screen
        movw    $7, %bx
        int     $0x10
        popa
        pusha
        movb    $1, %ah                 # serial
        xorw    %dx, %dx
        int     $0x14
        popa
done:
        ret

packet: .byte   16, 0
        .word   1                       # sectors
        .word   sector, 0
        .quad   1                       # first sector
keys:   .long   0
drive:  .byte   0
hello:  .asciz  "\r\nnano: boots="
typed:  .asciz  "\r\nkeys="
ready:  .asciz  "\r\n> "
failed: .asciz  "\r\nnano: the disk failed"

        .org    510
        .word   0xaa55
