# What an ordinary 64-bit kernel asks of a processor, in the order in which it does: the proof that
# an accelerator runs guests. It is its own firmware: 16-bit code at the start of the last
# 64 KiB below 1 MiB. Each stage that works says its letter on the debug port 0xe9:
#
#   R real mode          P protected mode     L long mode       G paging (4 KiB, dirty bits)
#   S SSE2               X exceptions         T timer interrupt wakes hlt
#   U user mode by sysret and back by syscall
#
# Then it ends QEMU by writing 0x2a to isa-debug-exit at 0xf4 (exit code 0x55). A check that
# fails writes 0x01 (exit code 3); anything worse is caught by the caller's deadline.
#
#   as --64 payload.S -o p.o && ld -m elf_x86_64 -Ttext 0xf0000 --oformat binary p.o -o payload.bin

        .set    PML4,  0x10000
        .set    PDPT,  0x11000
        .set    PD,    0x12000
        .set    PT,    0x13000
        .set    IDT,   0x14000
        .set    FRAME, 0x20000          # a page of memory ...
        .set    ALIAS, 0x1ff000         # ... seen here too, through paging
        .set    APIC,  0x1fe000         # the local interrupt controller's registers
        .set    HOLE,  0x200000         # mapped nowhere
        .set    STACK, 0x8000
        .set    SEEN,  0x9000           # counts of exceptions and ticks

        .macro  say letter
        movb    $\letter, %al
        outb    %al, $0xe9
        .endm

        .code16
        .globl  _start
_start: cli
        cld
        say     'R'
        movw    %cs, %ax
        movw    %ax, %ds
        lgdtl   gdt_pointer - 0xf0000
        movl    %cr0, %eax
        orl     $1, %eax
        movl    %eax, %cr0
        ljmpl   $0x08, $protected

        .code32
protected:
        movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $STACK, %esp
        say     'P'
        # Zeroed tables, then the first 2 MiB one to one in 4 KiB pages, for user mode too.
        movl    $PML4, %edi
        xorl    %eax, %eax
        movl    $(0x5000 / 4), %ecx
        rep stosl
        movl    $0, SEEN
        movl    $0, SEEN + 4
        movl    $(PDPT + 7), PML4
        movl    $(PD + 7), PDPT
        movl    $(PT + 7), PD
        movl    $PT, %edi
        movl    $7, %eax
1:      movl    %eax, (%edi)
        addl    $0x1000, %eax
        addl    $8, %edi
        cmpl    $(PT + 0x1000), %edi
        jb      1b
        movl    $(FRAME + 7), PT + (ALIAS >> 9)
        movl    $0xfee0001f, PT + (APIC >> 9) # uncached
        movl    %cr4, %eax
        orl     $0x620, %eax            # PAE, OSFXSR, OSXMMEXCPT
        movl    %eax, %cr4
        movl    $PML4, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx       # EFER: SCE, LME
        rdmsr
        orl     $0x101, %eax
        wrmsr
        movl    %cr0, %eax
        andl    $0xfffffffb, %eax       # not EM
        orl     $0x80010002, %eax       # PG, WP, MP
        movl    %eax, %cr0
        ljmpl   $0x18, $long

        .code64
long:   movw    $0x10, %ax
        movw    %ax, %ss
        movq    $STACK, %rsp
        movabsq $0x123456789abcdef0, %rbx
        movq    %rbx, %rax
        shrq    $32, %rax
        cmpl    $0x12345678, %eax
        jne     wrong
        say     'L'

        movq    %rbx, ALIAS
        cmpq    %rbx, FRAME
        jne     wrong
        testl   $0x40, PT + (ALIAS >> 9) # dirty
        jz      wrong
        say     'G'

        movq    %rbx, %xmm0
        punpcklqdq %xmm0, %xmm0
        paddq   %xmm0, %xmm0
        movdqu  %xmm0, FRAME + 64
        leaq    (%rbx, %rbx), %rax
        cmpq    %rax, ALIAS + 72
        jne     wrong
        movl    $144, %eax
        cvtsi2sd %eax, %xmm1
        sqrtsd  %xmm1, %xmm1
        cvttsd2si %xmm1, %eax
        cmpl    $12, %eax
        jne     wrong
        say     'S'

        movl    $3, %edi
        movl    $breakpoint, %eax
        call    gate
        movl    $14, %edi
        movl    $fault, %eax
        call    gate
        movl    $0x20, %edi
        movl    $tick, %eax
        call    gate
        lidt    idt_pointer
        int3
        movb    $1, HOLE                # the handler steps over this instruction
        cmpl    $2, SEEN
        jne     wrong
        say     'X'

        movl    $0x1ff, APIC + 0xf0     # on,
        movl    $0x700, APIC + 0x350    # and hands on what the classic one says
        # The classic interrupt controllers at vectors 0x20 and 0x28, the timer alone, 1 kHz.
        movb    $0x11, %al
        outb    %al, $0x20
        outb    %al, $0xa0
        movb    $0x20, %al
        outb    %al, $0x21
        movb    $0x28, %al
        outb    %al, $0xa1
        movb    $4, %al
        outb    %al, $0x21
        movb    $2, %al
        outb    %al, $0xa1
        movb    $1, %al
        outb    %al, $0x21
        outb    %al, $0xa1
        movb    $0xfe, %al
        outb    %al, $0x21
        movb    $0xff, %al
        outb    %al, $0xa1
        movb    $0x34, %al
        outb    %al, $0x43
        movb    $(1193 & 0xff), %al
        outb    %al, $0x40
        movb    $(1193 >> 8), %al
        outb    %al, $0x40
2:      sti
        hlt
        cli
        cmpl    $5, SEEN + 4
        jb      2b
        say     'T'

        movl    $0xc0000081, %ecx       # STAR: kernel 0x18 and 0x20, user 0x28 + 8 and + 16
        xorl    %eax, %eax
        movl    $0x002b0018, %edx
        wrmsr
        incl    %ecx                    # LSTAR
        movl    $back, %eax
        xorl    %edx, %edx
        wrmsr
        movl    $0xc0000100, %ecx       # FS base
        movl    $FRAME, %eax
        xorl    %edx, %edx
        wrmsr
        movl    $user, %ecx
        movl    $2, %r11d
        sysretq
user:   movw    %cs, %ax
        andb    $3, %al
        cmpb    $3, %al
        jne     wrong
        cmpq    %rbx, %fs:0
        jne     wrong
        syscall
        jmp     wrong
back:   movw    %cs, %ax
        testb   $3, %al
        jnz     wrong
        say     'U'
        movl    $0x2a, %eax
        outl    %eax, $0xf4
3:      hlt
        jmp     3b

wrong:  movl    $1, %eax
        outl    %eax, $0xf4
        jmp     3b

# Interrupt gate edi -> eax
gate:   shll    $4, %edi
        movw    %ax, IDT(%rdi)
        movl    $0x8e000018, IDT + 2(%rdi)
        shrl    $16, %eax
        movw    %ax, IDT + 6(%rdi)
        ret

breakpoint:
        incl    SEEN
        iretq
fault:  movq    %cr2, %rax
        cmpq    $HOLE, %rax
        jne     wrong
        addq    $8, %rsp                # the error code
        addq    $8, (%rsp)              # the length of the instruction that faulted
        incl    SEEN
        iretq
tick:   incl    SEEN + 4
        movb    $0x20, %al
        outb    %al, $0x20
        iretq

        .align  8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      # 0x08 code, 32 bits
        .quad   0x00cf93000000ffff      # 0x10 data
        .quad   0x00af9b000000ffff      # 0x18 code, 64 bits
        .quad   0x00cf93000000ffff      # 0x20 data
        .quad   0x00cffb000000ffff      # 0x28 user code, 32 bits
        .quad   0x00cff3000000ffff      # 0x30 user data
        .quad   0x00affb000000ffff      # 0x38 user code, 64 bits
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .long   gdt
idt_pointer:
        .word   0x21 * 16 - 1
        .quad   IDT
