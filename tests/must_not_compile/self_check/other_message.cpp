// EXPECT: words that no compiler says
#ifdef DPSGD_WRONG
#error "other words"
#endif
int main() {}
