# What the test guest of the accelerator probe executes: a boot sector that does once what every stock kernel does before
# it says a word. Real mode, long mode with paging, an address in the upper half, an exception and its return, ring 3 and
# a system call back; only then it tells the debug-exit port. Some nested hypervisors run the first and hang in the rest.
#   as --64 -o probe.o probe.S && objcopy -O binary -j .text probe.o probe.bin
        .intel_syntax noprefix
        .equ    BASE, 0x7c00
        .equ    HIGH, 0xffffffff80000000
        .equ    PML4, 0x1000
        .equ    PDPT, 0x2000
        .equ    PD,   0x3000
        .equ    IDT,  0x4000
        .equ    STACK, 0x9000

        .code16
start:
        cli
        cld
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, BASE
        # Tables for the first GiB, at its own address and at HIGH; the rest of the four pages is zero.
        mov     edi, PML4
        mov     cr3, edi
        mov     ecx, 0x1000
        xor     eax, eax
        rep     stosd
        mov     word ptr [PML4], PDPT | 7
        mov     word ptr [PML4 + 511 * 8], PDPT | 7
        mov     word ptr [PDPT], PD | 7
        mov     word ptr [PDPT + 510 * 8], PD | 7
        mov     di, PD
        mov     eax, 0x87
        mov     cx, 512
1:      mov     [di], eax
        add     eax, 0x200000
        add     di, 8
        loop    1b
        lgdt    [BASE + gdtr - start]
        mov     eax, cr4
        or      al, 1 << 5
        mov     cr4, eax
        mov     ecx, 0xc0000080
        rdmsr
        or      ax, 1 << 8 | 1
        wrmsr
        mov     eax, cr0
        or      eax, 1 << 31 | 1
        mov     cr0, eax
        .byte   0xea
        .word   BASE + long - start, 8

        .code64
long:
        mov     eax, 16
        mov     ds, eax
        mov     ss, eax
        movabs  rsp, HIGH + STACK
        movabs  rax, HIGH + BASE + (high - start)
        jmp     rax
high:
        # One gate, for the breakpoint exception.
        lea     rax, [rip + breakpoint]
        mov     rdi, HIGH + IDT + 3 * 16
        mov     [rdi], ax
        mov     dword ptr [rdi + 2], 8
        mov     byte ptr [rdi + 5], 0x8e
        shr     rax, 16
        mov     [rdi + 6], ax
        shr     rax, 16
        mov     [rdi + 8], eax
        lidt    [rip + idtr]
        xor     ebx, ebx
        int3
        cmp     ebx, 0x2a
        jne     dead
        # The tables anew: what was translated is forgotten.
        mov     rax, cr3
        mov     cr3, rax
        xor     eax, eax
        cpuid
        # Ring 3 and back.
        mov     ecx, 0xc0000081
        xor     eax, eax
        mov     edx, 8 | 16 << 16
        wrmsr
        inc     ecx
        lea     rax, [rip + called]
        mov     rdx, rax
        shr     rdx, 32
        wrmsr
        lea     rcx, [rip + user]
        mov     r11d, 2
        sysretq
user:
        syscall
dead:
        hlt
        jmp     dead
breakpoint:
        mov     ebx, 0x2a
        iretq
called:
        mov     edx, 0x501
        mov     al, 0x2a
        out     dx, al
        jmp     dead

        .balign 8
gdt:    .quad   0
        .quad   0x00209b0000000000      # 8: code, ring 0
        .quad   0x0000930000000000      # 16: data, ring 0
        .quad   0x0000f30000000000      # 24: data, ring 3 (sysret: base + 8)
        .quad   0x0020fb0000000000      # 32: code, ring 3 (sysret: base + 16)
gdtr:   .word   gdtr - gdt - 1
        .long   BASE + gdt - start
idtr:   .word   4 * 16 - 1
        .quad   HIGH + IDT

        .org    510
        .word   0xaa55
