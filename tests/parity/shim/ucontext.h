// Replaces glibc's <ucontext.h> in cuda_shim.h, which finds this file first. glibc's swapcontext saves
// the signal mask with two system calls. Fibers need no signal mask, so a switch here saves and loads
// the registers that a function must keep, and nothing else. Processors other than x86-64 use glibc's.
#pragma once

#ifndef __x86_64__
#include_next <ucontext.h>
#else

#include <cstddef>
#include <cstdint>

struct ucontext_t {
    void *stack_pointer;
    struct {
        void *ss_sp;
        int ss_flags;
        size_t ss_size;
    } uc_stack;
    ucontext_t *uc_link;
};

// Push the kept registers, store the stack pointer, load the other one, and pop its registers.
extern "C" void shim_switch(void **save, void *load);
asm(R"(
    .text
    .hidden shim_switch
    .globl shim_switch
    .type shim_switch, @function
shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size shim_switch, .-shim_switch
)");

static inline int getcontext(ucontext_t *) { return 0; }

// Let a fiber begin in `entry`, which never returns. The stack looks as after a call of `entry`.
static inline void makecontext(ucontext_t *context, void (*entry)(), int) {
    const uintptr_t end = (uintptr_t)context->uc_stack.ss_sp + context->uc_stack.ss_size;
    void **top = (void **)(end & ~(uintptr_t)15) - 2; // x86-64 wants 16-byte alignment here
    top[0] = (void *)entry;
    top[1] = nullptr; // the address to which `entry` would return
    for (int i = 0; i < 6; ++i) *--top = nullptr; // the six registers that shim_switch pops
    context->stack_pointer = top;
}

static inline int swapcontext(ucontext_t *from, const ucontext_t *to) {
    shim_switch(&from->stack_pointer, to->stack_pointer);
    return 0;
}

#endif
