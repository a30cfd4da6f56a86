#ifdef DPSGD_WRONG
#error "refused"
#endif
int main() {}
