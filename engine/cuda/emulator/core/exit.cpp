// A program may end while a thread of it still talks to the driver, as it may with the real one. So nothing of this
// library is taken apart at the end: objects that would be are not noted.
extern "C" __attribute__((visibility("hidden"))) int __cxa_atexit(void (*)(void*), void*, void*) { return 0; }
