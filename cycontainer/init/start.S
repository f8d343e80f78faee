/* Entry point: argc and argv lie on the stack as the kernel left them. */
.text
.globl _start
_start:
#if defined(__x86_64__)
    xor %ebp, %ebp
    mov (%rsp), %rdi
    lea 8(%rsp), %rsi
    and $-16, %rsp
    call init_main
    mov %eax, %edi
    mov $231, %eax
    syscall
#elif defined(__aarch64__)
    mov x29, #0
    ldr x0, [sp]
    add x1, sp, #8
    bl init_main
    mov x8, #94
    svc 0
#endif
.section .note.GNU-stack,"",%progbits
