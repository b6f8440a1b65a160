from django.db import models


class Account(models.Model):
    name = models.CharField(max_length=100, unique=True)

    def __str__(self):
        return self.name


class Tag(models.Model):
    name = models.CharField(max_length=50, unique=True)


class Customer(models.Model):
    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="customers")
    name = models.CharField(max_length=100)
    active = models.BooleanField(default=True)
    rank = models.IntegerField(default=0)
    tags = models.ManyToManyField(Tag, related_name="customers", blank=True)
    email = models.EmailField()
    phone = models.CharField(max_length=40, null=True, blank=True, db_index=True)
    ssn = models.CharField(max_length=40, blank=True)
    birth = models.DateField(null=True, blank=True)
    balance = models.DecimalField(max_digits=12, decimal_places=2, null=True, blank=True)
    visits = models.IntegerField(null=True, blank=True)
    joined = models.DateTimeField(null=True, blank=True)
    extra = models.JSONField(null=True, blank=True)
    token = models.UUIDField(null=True, blank=True, unique=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "email"], name="one_email")]

    def __str__(self):
        return self.name


class Order(models.Model):
    account = models.ForeignKey(Account, on_delete=models.CASCADE)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="orders")
    number = models.IntegerField()
    total = models.DecimalField(max_digits=10, decimal_places=2)
    comment = models.TextField(blank=True)
